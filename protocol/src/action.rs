//! What is executed (SPEC §6): a derivation with every input replaced by the hash of its content.
//!
//! Its id is the input hash, of which attestations speak. Two people who wrote different
//! derivations share an action as soon as the same bytes go in.

use std::collections::BTreeMap;

use minicbor::{
    Decoder, Encode, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};

use crate::{
    derivation::{ABI, FETCH, Recipe, decode_sri, encode_sri},
    encode::{self, DecodeError, elements, list, refuse},
    id::{ActionId, NarHash},
    limits,
    name::Name,
    sri::Sri,
};

const CONTEXT: &str = "assize 2026-11 action";

/// An action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Runs wasm.
    Build(BuildAction),
    /// Obtains a file; whoever has it can check it, so it needs no attester.
    Fetch(FetchAction),
}

/// An action that runs wasm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildAction {
    /// What it does.
    pub recipe: Recipe,
    /// What is mounted at `/in/<name>`.
    pub inputs: BTreeMap<Name, NarHash>,
}

/// An action that obtains a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchAction {
    /// What the file hashes to.
    pub sri: Sri,
    /// Whether the file is executable in its archive.
    pub executable: bool,
}

impl Action {
    /// Its inputs, in the order of their names; a fetch has none.
    pub fn inputs(&self) -> impl Iterator<Item = &NarHash> {
        let build = match self {
            Self::Build(build) => Some(build.inputs.values()),
            Self::Fetch(_) => None,
        };
        build.into_iter().flatten()
    }

    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// Reads a canonical encoding of at most [`limits::DERIVATION_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; an encoding that breaks a rule of SPEC §5 or §6 is malformed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::DERIVATION_BYTES)
    }

    /// Its id, the input hash: the hash of its encoding.
    pub fn id(&self) -> ActionId {
        ActionId::from_bytes(blake3::derive_key(CONTEXT, &self.to_bytes()))
    }
}

impl BuildAction {
    /// The JSON document that steps read on stdin (SPEC §6.2): where the inputs and the outputs
    /// are mounted, then the author's own fields.
    pub fn stdin_document(&self) -> String {
        let mounts = |pairs: Vec<(&Name, String)>| {
            // Names are made of characters that JSON does not escape.
            let fields: Vec<_> = pairs.iter().map(|(n, p)| format!("\"{n}\":\"{p}\"")).collect();
            fields.join(",")
        };
        let inputs = mounts(self.inputs.keys().map(|n| (n, n.input_mount())).collect());
        let outputs = mounts(self.recipe.outputs.iter().map(|n| (n, n.output_mount())).collect());
        let author = match self.recipe.stdin[1..].trim_ascii_start() {
            "}" => "}".to_owned(),
            fields => format!(",{fields}"),
        };
        format!("{{\"inputs\":{{{inputs}}},\"outputs\":{{{outputs}}}{author}")
    }
}

impl<C> Encode<C> for Action {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Build(build) => {
                e.array(7)?.str(ABI)?;
                build.recipe.encode_head(e)?;
                list::encode(e, build.inputs.iter())?;
                build.recipe.encode_tail(e)
            }
            Self::Fetch(fetch) => {
                e.array(4)?.str(FETCH)?;
                encode_sri(e, &fetch.sri)?;
                e.bool(fetch.executable)?.ok()
            }
        }
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Action {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Malformed> {
        let at = d.position();
        let len = d.array()?;
        match d.str()? {
            ABI => {
                elements(at, len, 7)?;
                let (recipe, inputs): (Recipe, BTreeMap<_, _>) =
                    Recipe::decode(d, |d| list::decode(d, limits::INPUTS))?;
                recipe.check().and_then(|()| recipe.check_inputs(&inputs)).map_err(|e| refuse(at, e))?;
                Ok(Self::Build(BuildAction { recipe, inputs }))
            }
            FETCH => {
                elements(at, len, 4)?;
                Ok(Self::Fetch(FetchAction { sri: decode_sri(d)?, executable: d.bool()? }))
            }
            other => Err(refuse(at, format!("unknown abi `{other}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{derivation::Step, name::GuestPath};

    fn action(stdin: &str) -> BuildAction {
        let run = GuestPath::new("/in/a/x.wasm").unwrap();
        BuildAction {
            recipe: Recipe {
                steps: vec![Step { run, args: vec![], stdin: None, stdout: None, cwd: None }],
                env: BTreeMap::new(),
                stdin: stdin.into(),
                outputs: BTreeSet::from([Name::out(), Name::new("dev").unwrap()]),
                executable: BTreeSet::new(),
            },
            inputs: BTreeMap::from([(Name::new("a").unwrap(), NarHash::from_bytes([0; 32]))]),
        }
    }

    #[test]
    fn stdin_document_is_json() {
        let mounts = r#"{"inputs":{"a":"/in/a"},"outputs":{"dev":"/out-dev","out":"/out"}"#;
        assert_eq!(action("{}").stdin_document(), format!("{mounts}}}"));
        assert_eq!(action("{ }").stdin_document(), format!("{mounts}}}"));
        assert_eq!(action(r#"{"x":[1]}"#).stdin_document(), format!(r#"{mounts},"x":[1]}}"#));
    }

    #[test]
    fn round_trip() {
        let action = Action::Build(action("{}"));
        assert_eq!(Action::from_bytes(&action.to_bytes()).unwrap(), action);
        let sri = format!("sha256-{}", data_encoding::BASE64.encode(&[1; 32])).parse().unwrap();
        let fetch = Action::Fetch(FetchAction { sri, executable: true });
        assert_eq!(Action::from_bytes(&fetch.to_bytes()).unwrap(), fetch);
        assert_ne!(action.id(), fetch.id());
    }
}
