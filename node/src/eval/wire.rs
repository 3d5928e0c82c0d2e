//! The worker's answer on its way through the pipe.
//!
//! ```text
//! magic, length (u64), JSON (the error, or all but the derivations), then for each derivation:
//! length (u32), canonical bytes
//! ```
//!
//! Lengths are little-endian. The reader trusts nothing: derivations are decoded strictly, their ids
//! are computed anew, and whatever the answer refers to must be in it.

use std::{collections::BTreeMap, path::PathBuf};

use protocol::{
    derivation::Derivation,
    id::{DerivationId, NarHash},
    name::Name,
};
use serde::{Deserialize, Serialize};

use super::{
    Attribute, Evaluation, Root, SourceUse,
    error::{EvalError, Fault},
};

const MAGIC: &[u8] = b"assize evaluation 1\n";

#[derive(Serialize, Deserialize)]
enum Head {
    Failed(EvalError),
    Made {
        roots: Vec<WireRoot>,
        sources: Vec<WireSource>,
        json: Option<String>,
        attributes: Vec<Attribute>,
        derivations: usize,
    },
}

#[derive(Serialize, Deserialize)]
struct WireRoot {
    attribute: String,
    derivation: String,
    output: Option<String>,
    main: Option<String>,
    description: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct WireSource {
    path: PathBuf,
    exclude: Vec<String>,
    hash: String,
}

/// Writes an answer; one longer than `limit` becomes an error.
pub(super) fn encode(result: Result<Evaluation, EvalError>, limit: u64) -> Vec<u8> {
    let made = match result {
        Ok(evaluation) => made(&evaluation).filter(|bytes| bytes.len() as u64 <= limit),
        Err(error) => return failed(error),
    };
    made.unwrap_or_else(|| failed(Fault::AnswerTooLong { limit }.into()))
}

fn failed(error: EvalError) -> Vec<u8> {
    // Strings, numbers and lists of them: there is nothing that could fail.
    framed(&Head::Failed(error)).unwrap_or_default()
}

fn made(evaluation: &Evaluation) -> Option<Vec<u8>> {
    let root = |root: &Root| WireRoot {
        attribute: root.attribute.clone(),
        derivation: root.derivation.to_string(),
        output: root.output.as_ref().map(ToString::to_string),
        main: root.main.clone(),
        description: root.description.clone(),
    };
    let source = |source: &SourceUse| WireSource {
        path: source.path.clone(),
        exclude: source.exclude.clone(),
        hash: source.hash.to_string(),
    };
    let mut bytes = framed(&Head::Made {
        roots: evaluation.roots.iter().map(root).collect(),
        sources: evaluation.sources.iter().map(source).collect(),
        json: evaluation.json.clone(),
        attributes: evaluation.attributes.clone(),
        derivations: evaluation.derivations.len(),
    })?;
    for derivation in evaluation.derivations.values() {
        let encoding = derivation.to_bytes();
        bytes.extend(u32::try_from(encoding.len()).ok()?.to_le_bytes());
        bytes.extend(encoding);
    }
    Some(bytes)
}

fn framed(head: &Head) -> Option<Vec<u8>> {
    let json = serde_json::to_vec(head).ok()?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend((json.len() as u64).to_le_bytes());
    bytes.extend(json);
    Some(bytes)
}

/// Reads an answer.
///
/// # Errors
///
/// What the worker reports, or [`Fault::Answer`].
pub(super) fn decode(bytes: &[u8]) -> Result<Evaluation, EvalError> {
    read(bytes).map_err(|why| EvalError::from(Fault::Answer { why }))?
}

fn read(mut bytes: &[u8]) -> Result<Result<Evaluation, EvalError>, String> {
    bytes = bytes.strip_prefix(MAGIC).ok_or("it does not begin as an answer does")?;
    let len = u64::from_le_bytes(take(&mut bytes, 8)?.try_into().map_err(|_| "short")?);
    let head = take(&mut bytes, usize::try_from(len).map_err(|_| "a length is too large")?)?;
    let head: Head = serde_json::from_slice(head).map_err(|e| e.to_string())?;
    let (roots, sources, json, attributes, count) = match head {
        Head::Failed(error) => return Ok(Err(error)),
        Head::Made { roots, sources, json, attributes, derivations } => {
            (roots, sources, json, attributes, derivations)
        }
    };
    let mut derivations = BTreeMap::new();
    for _ in 0..count {
        let len = u32::from_le_bytes(take(&mut bytes, 4)?.try_into().map_err(|_| "short")?);
        let encoding = take(&mut bytes, len as usize)?;
        let derivation = Derivation::from_bytes(encoding).map_err(|e| format!("a derivation: {e}"))?;
        derivations.insert(derivation.id(), derivation);
    }
    if !bytes.is_empty() {
        return Err(format!("{} bytes behind its end", bytes.len()));
    }
    let roots = roots.into_iter().map(read_root).collect::<Result<Vec<_>, _>>()?;
    let sources = sources.into_iter().map(read_source).collect::<Result<Vec<_>, _>>()?;
    complete(&roots, &derivations)?;
    Ok(Ok(Evaluation { roots, derivations, sources, json, attributes }))
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes.split_at_checked(len).ok_or("it ends early")?;
    *bytes = rest;
    Ok(taken)
}

fn read_root(root: WireRoot) -> Result<Root, String> {
    Ok(Root {
        attribute: root.attribute,
        derivation: root.derivation.parse().map_err(|e| format!("a root: {e}"))?,
        output: root.output.map(Name::new).transpose().map_err(|e| format!("a root: {e}"))?,
        main: root.main,
        description: root.description,
    })
}

fn read_source(source: WireSource) -> Result<SourceUse, String> {
    let hash: NarHash = source.hash.parse().map_err(|e| format!("a source: {e}"))?;
    let plain = |c: std::path::Component<'_>| matches!(c, std::path::Component::Normal(_));
    if !source.path.components().all(plain) {
        return Err(format!("the source `{}` is not below the root", source.path.display()));
    }
    Ok(SourceUse { path: source.path, exclude: source.exclude, hash })
}

/// Checks that what is referred to is there.
fn complete(roots: &[Root], derivations: &BTreeMap<DerivationId, Derivation>) -> Result<(), String> {
    let absent = |id: &DerivationId| format!("{id} is not in it");
    for root in roots {
        let derivation = derivations.get(&root.derivation).ok_or_else(|| absent(&root.derivation))?;
        if let Some(output) = root.output.as_ref().filter(|output| !derivation.outputs().contains(output)) {
            return Err(format!("{} has no output `{output}`", root.derivation));
        }
    }
    for derivation in derivations.values() {
        if let Some(id) = derivation.dependencies().iter().find(|id| !derivations.contains_key(id)) {
            return Err(absent(id));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Evaluation {
        let fetch = Derivation::fetch(protocol::derivation::Fetch {
            name: Name::new("a").unwrap(),
            locations: vec!["https://example.org/a".into()],
            sri: format!("sha256-{}", data_encoding::BASE64.encode(&[1; 32])).parse().unwrap(),
            executable: false,
        });
        let fetch = fetch.unwrap();
        let source = SourceUse { path: "a".into(), exclude: vec![], hash: NarHash::from_bytes([2; 32]) };
        Evaluation {
            roots: vec![Root {
                attribute: "a".into(),
                derivation: fetch.id(),
                output: Some(Name::out()),
                main: None,
                description: Some("d".into()),
            }],
            derivations: BTreeMap::from([(fetch.id(), fetch)]),
            sources: vec![source],
            json: Some("{}".into()),
            attributes: vec![],
        }
    }

    #[test]
    fn round_trip_and_damage() {
        let bytes = encode(Ok(sample()), 1 << 20);
        assert_eq!(decode(&bytes).unwrap(), sample());
        for cut in 0..bytes.len() {
            assert!(
                matches!(*decode(&bytes[..cut]).unwrap_err().fault, Fault::Answer { .. }),
                "cut at {cut}"
            );
        }
        for byte in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1;
            // Nothing panics; what is still accepted is another valid answer.
            let _ = decode(&damaged);
        }
        let trailing = [&bytes[..], b"x"].concat();
        assert!(decode(&trailing).is_err());
    }

    #[test]
    fn references() {
        let mut none = sample();
        none.derivations.clear();
        assert!(decode(&encode(Ok(none), 1 << 20)).unwrap_err().to_string().contains("is not in it"));
        let mut outside = sample();
        outside.sources[0].path = "../a".into();
        assert!(decode(&encode(Ok(outside), 1 << 20)).unwrap_err().to_string().contains("below the root"));
        let long = encode(Ok(sample()), 10);
        assert_eq!(*decode(&long).unwrap_err().fault, Fault::AnswerTooLong { limit: 10 });
    }
}
