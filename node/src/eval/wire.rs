//! The worker's answer on its way through the pipe.
//!
//! ```text
//! magic
//! 1, length (u32), canonical bytes       a derivation; as many as were made, while they are made
//! 0, length (u64), JSON                  how it ended: the error, or all but the derivations
//! ```
//!
//! Lengths are little-endian. Derivations are not kept for the end, so that the parent checks them while
//! the worker makes more, and the worker needs no memory for them. The reader trusts nothing:
//! derivations are decoded strictly, their ids are computed anew, and whatever the answer refers to
//! must be in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufReader, BufWriter, Read, Write},
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use protocol::{
    derivation::{Derivation, Input, Kind},
    id::{DerivationId, NarHash},
    limits,
    name::Name,
};
use serde::{Deserialize, Serialize};

use super::{
    Attribute, Evaluation, Root, SourceUse,
    error::{EvalError, Fault},
};

const MAGIC: [u8; 20] = *b"assize evaluation 2\n";

const END: u8 = 0;
const DERIVATION: u8 = 1;

/// Bytes that wait on either side: as many as Linux keeps in a pipe.
const BUFFER: usize = 64 << 10;

/// What an evaluation gives, but for the derivations that it made on its way.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// `Mode::Build`: what was asked for.
    pub(super) roots: Vec<Root>,
    /// Derivations that the answer speaks of elsewhere.
    pub(super) wanted: Vec<DerivationId>,
    /// The sources that were hashed.
    pub(super) sources: Vec<SourceUse>,
    pub(super) json: Option<String>,
    pub(super) attributes: Vec<Attribute>,
}

#[derive(Serialize, Deserialize)]
enum End {
    Failed(EvalError),
    Made {
        roots: Vec<WireRoot>,
        wanted: Vec<String>,
        sources: Vec<WireSource>,
        json: Option<String>,
        attributes: Vec<Attribute>,
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

/// The answer that is being written, by whichever thread has something to say.
pub(super) struct Answer<W: Write>(Mutex<Writer<W>>);

struct Writer<W: Write> {
    out: BufWriter<W>,
    limit: u64,
    written: u64,
    /// Why nothing more can be written, if so.
    failed: Option<io::Error>,
    ended: bool,
}

impl<W: Write> Answer<W> {
    /// Begins an answer; one of more than `limit` bytes becomes an error.
    pub(super) fn new(out: W, limit: u64) -> Self {
        let out = BufWriter::with_capacity(BUFFER, out);
        let mut writer = Writer { out, limit, written: 0, failed: None, ended: false };
        writer.put(&[&MAGIC]);
        Self(Mutex::new(writer))
    }

    /// Writes a derivation, by its canonical encoding.
    pub(super) fn derivation(&self, encoding: &[u8]) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An encoding that was checked has no more than `limits::DERIVATION_BYTES`.
        let len = u32::try_from(encoding.len()).unwrap_or(u32::MAX);
        writer.written += 5 + u64::from(len);
        if !writer.ended && writer.written <= writer.limit {
            writer.put(&[&[DERIVATION], &len.to_le_bytes(), encoding]);
        }
    }

    /// Writes how the evaluation ended, unless that was said already.
    ///
    /// # Errors
    ///
    /// Nobody took the answer, or a part of it.
    pub(super) fn end(&self, result: Result<Outcome, EvalError>) -> io::Result<()> {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if writer.ended {
            return Ok(());
        }
        writer.ended = true;
        let failed = |error| serde_json::to_vec(&End::Failed(error)).map_err(io::Error::other);
        let json = match result {
            Err(error) => failed(error)?,
            Ok(outcome) => {
                let json = serde_json::to_vec(&made(outcome)).map_err(io::Error::other)?;
                if writer.written + json.len() as u64 <= writer.limit {
                    json
                } else {
                    failed(Fault::AnswerTooLong { limit: writer.limit }.into())?
                }
            }
        };
        writer.put(&[&[END], &(json.len() as u64).to_le_bytes(), &json]);
        match writer.failed.take() {
            Some(error) => Err(error),
            None => writer.out.flush(),
        }
    }
}

impl<W: Write> Writer<W> {
    fn put(&mut self, parts: &[&[u8]]) {
        for part in parts {
            if self.failed.is_none() {
                self.failed = self.out.write_all(part).err();
            }
        }
    }
}

fn made(outcome: Outcome) -> End {
    let root = |root: Root| WireRoot {
        attribute: root.attribute,
        derivation: root.derivation.to_string(),
        output: root.output.as_ref().map(ToString::to_string),
        main: root.main,
        description: root.description,
    };
    let source = |source: SourceUse| WireSource {
        path: source.path,
        exclude: source.exclude,
        hash: source.hash.to_string(),
    };
    End::Made {
        roots: outcome.roots.into_iter().map(root).collect(),
        wanted: outcome.wanted.iter().map(ToString::to_string).collect(),
        sources: outcome.sources.into_iter().map(source).collect(),
        json: outcome.json,
        attributes: outcome.attributes,
    }
}

/// Reads an answer to its end.
///
/// # Errors
///
/// What the worker reports, or [`Fault::Answer`].
pub(super) fn read(from: impl Read) -> Result<Evaluation, EvalError> {
    let mut from = BufReader::with_capacity(BUFFER, from);
    let answer = read_all(&mut from);
    // A worker that nobody listens to would end with another error than its own.
    let _ = io::copy(&mut from, &mut io::sink());
    answer.map_err(|why| EvalError::from(Fault::Answer { why }))?
}

fn read_all(from: &mut impl Read) -> Result<Result<Evaluation, EvalError>, String> {
    if bytes(from)? != MAGIC {
        return Err("it does not begin as an answer does".into());
    }
    let mut derivations = BTreeMap::new();
    let mut encoding = Vec::new();
    loop {
        match bytes(from)? {
            [DERIVATION] => {
                let len = u32::from_le_bytes(bytes(from)?) as usize;
                if len > limits::DERIVATION_BYTES {
                    return Err(format!("a derivation of {len} bytes"));
                }
                encoding.resize(len, 0);
                from.read_exact(&mut encoding).map_err(short)?;
                let (id, derivation) =
                    Derivation::identify(&encoding).map_err(|e| format!("a derivation: {e}"))?;
                derivations.insert(id, derivation);
            }
            [END] => break,
            [other] => return Err(format!("it has a part of the kind {other}")),
        }
    }
    let len = u64::from_le_bytes(bytes(from)?);
    let mut json = Vec::new();
    from.by_ref().take(len).read_to_end(&mut json).map_err(short)?;
    if (json.len() as u64) < len {
        return Err(EARLY.into());
    }
    if from.read(&mut [0]).map_err(short)? != 0 {
        return Err("there is more behind its end".into());
    }
    match serde_json::from_slice(&json).map_err(|e| e.to_string())? {
        End::Failed(error) => Ok(Err(error)),
        End::Made { roots, wanted, sources, json, attributes } => {
            let id = |text: String| text.parse().map_err(|e| format!("what is wanted: {e}"));
            let wanted = wanted.into_iter().map(id).collect::<Result<Vec<_>, _>>()?;
            let roots = roots.into_iter().map(read_root).collect::<Result<Vec<_>, _>>()?;
            let mut sources = sources.into_iter().map(read_source).collect::<Result<Vec<_>, _>>()?;
            let needed = needed(&roots, wanted, &derivations)?;
            derivations.retain(|id, _| needed.derivations.contains(id));
            sources.retain(|source| needed.archives.contains(&source.hash));
            Ok(Ok(Evaluation { roots, derivations, sources, json, attributes }))
        }
    }
}

const EARLY: &str = "it ends early";

fn short(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => EARLY.into(),
        _ => error.to_string(),
    }
}

fn bytes<const N: usize>(from: &mut impl Read) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).map_err(short)?;
    Ok(bytes)
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

/// What is referred to.
#[derive(Default)]
struct Needed {
    derivations: BTreeSet<DerivationId>,
    archives: BTreeSet<NarHash>,
}

/// What the roots and `wanted` need, and themselves; all of it must be there.
fn needed(
    roots: &[Root],
    wanted: Vec<DerivationId>,
    derivations: &BTreeMap<DerivationId, Derivation>,
) -> Result<Needed, String> {
    let find = |id: &DerivationId| derivations.get(id).ok_or_else(|| format!("{id} is not in it"));
    let mut needed = Needed::default();
    let mut queue = wanted;
    for root in roots {
        let derivation = find(&root.derivation)?;
        if let Some(output) = root.output.as_ref().filter(|output| !derivation.outputs().contains(*output)) {
            return Err(format!("{} has no output `{output}`", root.derivation));
        }
        queue.push(root.derivation);
    }
    while let Some(id) = queue.pop() {
        if !needed.derivations.insert(id) {
            continue;
        }
        let Kind::Build(build) = find(&id)?.kind() else { continue };
        for input in build.inputs.values() {
            match input {
                Input::Nar(hash) => {
                    needed.archives.insert(*hash);
                }
                Input::Output { derivation, .. } if !needed.derivations.contains(derivation) => {
                    queue.push(*derivation);
                }
                Input::Output { .. } => {}
            }
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(name: &str) -> Derivation {
        let fetch = Derivation::fetch(protocol::derivation::Fetch {
            name: Name::new(name).unwrap(),
            locations: vec!["https://example.org/a".into()],
            sri: format!("sha256-{}", data_encoding::BASE64.encode(&[1; 32])).parse().unwrap(),
            executable: false,
        });
        fetch.unwrap()
    }

    fn root() -> Root {
        Root {
            attribute: "a".into(),
            derivation: fetch("a").id(),
            output: Some(Name::out()),
            main: None,
            description: Some("d".into()),
        }
    }

    fn outcome() -> Outcome {
        Outcome { roots: vec![root()], json: Some("{}".into()), ..Outcome::default() }
    }

    /// An answer of some derivations and an end.
    fn written(derivations: &[Derivation], outcome: Outcome, limit: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        let answer = Answer::new(&mut bytes, limit);
        derivations.iter().for_each(|derivation| answer.derivation(&derivation.to_bytes()));
        answer.end(Ok(outcome)).unwrap();
        // What comes behind the end is not written.
        answer.derivation(&fetch("late").to_bytes());
        answer.end(Err(Fault::Worker { why: "late".into() }.into())).unwrap();
        drop(answer);
        bytes
    }

    #[test]
    fn round_trip_and_damage() {
        let bytes = written(&[fetch("a"), fetch("b")], outcome(), 1 << 20);
        let expected = Evaluation {
            roots: vec![root()],
            derivations: BTreeMap::from([(fetch("a").id(), fetch("a"))]),
            json: Some("{}".into()),
            ..Evaluation::default()
        };
        assert_eq!(read(&bytes[..]).unwrap(), expected);
        for cut in 0..bytes.len() {
            assert!(matches!(*read(&bytes[..cut]).unwrap_err().fault, Fault::Answer { .. }), "cut at {cut}");
        }
        for byte in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 1;
            // Nothing panics; what is still accepted is another valid answer.
            let _ = read(&damaged[..]);
        }
        let trailing = [&bytes[..], b"x"].concat();
        assert!(read(&trailing[..]).unwrap_err().to_string().contains("behind its end"));
    }

    #[test]
    fn references() {
        let refused = |derivations: &[Derivation], outcome, why: &str| {
            let error = read(&written(derivations, outcome, 1 << 20)[..]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(&[], outcome(), "is not in it");
        refused(&[fetch("b")], outcome(), "is not in it");
        let wanted = Outcome { wanted: vec![fetch("a").id()], ..Outcome::default() };
        refused(&[], wanted, "is not in it");
        let mut output = outcome();
        output.roots[0].output = Some(Name::new("dev").unwrap());
        refused(&[fetch("a")], output, "has no output `dev`");
        let mut outside = outcome();
        let hash = NarHash::from_bytes([2; 32]);
        outside.sources.push(SourceUse { path: "../a".into(), exclude: vec![], hash });
        refused(&[fetch("a")], outside, "below the root");
    }

    /// An input of a derivation must be there as well; a source that nothing needs is left out.
    #[test]
    fn inputs() {
        let path = protocol::name::GuestPath::new("/in/a/a.wasm").unwrap();
        let step =
            protocol::derivation::Step { run: path, args: vec![], stdin: None, stdout: None, cwd: None };
        let input = Input::Output { derivation: fetch("a").id(), output: Name::out() };
        let nar = |byte| NarHash::from_bytes([byte; 32]);
        let build = Derivation::build(protocol::derivation::Build {
            name: Name::new("b").unwrap(),
            recipe: protocol::derivation::Recipe {
                steps: vec![step],
                env: BTreeMap::new(),
                stdin: "{}".into(),
                outputs: BTreeSet::from([Name::out()]),
                executable: BTreeSet::new(),
            },
            inputs: BTreeMap::from([
                (Name::new("a").unwrap(), input),
                (Name::new("s").unwrap(), Input::Nar(nar(1))),
            ]),
            limits: protocol::derivation::Limits::default(),
        });
        let build = build.unwrap();
        let source = |byte| SourceUse { path: "s".into(), exclude: vec![], hash: nar(byte) };
        let outcome = || Outcome {
            wanted: vec![build.id()],
            sources: vec![source(1), source(2)],
            ..Outcome::default()
        };
        let error = read(&written(std::slice::from_ref(&build), outcome(), 1 << 20)[..]).unwrap_err();
        assert!(error.to_string().contains("is not in it"), "{error}");
        let whole = read(&written(&[fetch("a"), build.clone()], outcome(), 1 << 20)[..]).unwrap();
        assert_eq!(whole.derivations.len(), 2);
        assert_eq!(whole.sources, [source(1)]);
    }

    #[test]
    fn too_long() {
        for limit in [0, 10, 200] {
            let long = written(&[fetch("a"), fetch("b"), fetch("c")], outcome(), limit);
            assert_eq!(*read(&long[..]).unwrap_err().fault, Fault::AnswerTooLong { limit });
        }
    }

    #[test]
    fn a_derivation_in_another_form() {
        let mut bytes = Vec::new();
        let answer = Answer::new(&mut bytes, 1 << 20);
        let mut encoding = fetch("a").to_bytes();
        // The array of six elements, with its length in a byte of its own.
        encoding.splice(0..1, [0x98, 0x06]);
        answer.derivation(&encoding);
        answer.end(Ok(Outcome::default())).unwrap();
        drop(answer);
        assert!(read(&bytes[..]).unwrap_err().to_string().contains("not the canonical form"));
    }
}
