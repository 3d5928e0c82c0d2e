//! A build as its author wrote it (SPEC §5).
//!
//! ```text
//! Build: inputs by hash, or outputs of other derivations ── resolve(outputs so far) ──▶ Action
//! Fetch: locations and the expected hash                 ──────────────────────────────▶ Action
//! ```
//!
//! What cannot change an output (name, limits, locations) is in the derivation and not in the
//! action, so it never separates two people's builds.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{
    Decoder, Encode, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};

use crate::{
    action::{Action, BuildAction, FetchAction},
    encode::{self, DecodeError, array, elements, list, refuse},
    glob::Glob,
    id::{DerivationId, NarHash},
    limits,
    name::{GuestPath, Name, NameError},
    sri::{Algorithm, Sri},
};

/// The execution environment whose meaning SPEC §7 fixes.
pub const ABI: &str = "wasi-p1/1";

/// What stands in the place of the abi when a derivation fetches instead of building.
pub const FETCH: &str = "fetch/1";

const CONTEXT: &str = "assize 2026-11 derivation";

/// One run of a wasm module (SPEC §5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The module: in an input, or one that an earlier step wrote.
    pub run: GuestPath,
    /// `argv`, the program's own name at the front.
    pub args: Vec<String>,
    /// The file it reads as stdin, instead of the JSON document.
    pub stdin: Option<GuestPath>,
    /// The file its stdout becomes, instead of the log.
    pub stdout: Option<GuestPath>,
    /// The directory that relative paths start from; `/` if not given.
    pub cwd: Option<GuestPath>,
}

/// What a derivation and its action have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Run in order, over one file system. At least one, at most [`limits::STEPS`].
    pub steps: Vec<Step>,
    /// The environment of every step.
    pub env: BTreeMap<String, String>,
    /// The author's fields of the JSON document: the text of one JSON object.
    pub stdin: String,
    /// At least one, at most [`limits::OUTPUTS`].
    pub outputs: BTreeSet<Name>,
    /// Files of the outputs that are executable although they are not wasm.
    pub executable: BTreeSet<String>,
}

/// Where the files of an input come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// An archive known by its hash: a source.
    Nar(NarHash),
    /// An output of another derivation.
    Output {
        /// That derivation.
        derivation: DerivationId,
        /// The name of its output.
        output: Name,
    },
}

/// How much a build may use. What is not given is the node's to say; a limit only ever aborts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of linear memory and tables.
    pub memory: Option<u64>,
    /// Seconds by the wall clock.
    pub seconds: Option<u64>,
    /// Bytes of files written.
    pub disk: Option<u64>,
}

/// A derivation that runs wasm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// What people call it.
    pub name: Name,
    /// What it does.
    pub recipe: Recipe,
    /// Mounted at `/in/<name>`. At most [`limits::INPUTS`].
    pub inputs: BTreeMap<Name, Input>,
    /// What it may use.
    pub limits: Limits,
}

/// A derivation that obtains one file from the network, and checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// What people call it.
    pub name: Name,
    /// URLs, or `npm:…`, `pypi:…`, `crate:…`; tried in order. At least one.
    pub locations: Vec<String>,
    /// What the file must hash to.
    pub sri: Sri,
    /// Whether the file is executable in its archive.
    pub executable: bool,
}

/// A build as its author wrote it.
///
/// Only [`Derivation::build`] and [`Derivation::fetch`] make one, so whoever holds one holds a
/// derivation that keeps every rule of SPEC §5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derivation(Kind);

/// The two kinds of derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Runs wasm.
    Build(Build),
    /// Obtains a file.
    Fetch(Fetch),
}

/// Which rule of SPEC §5 a derivation breaks.
#[derive(Debug, thiserror::Error)]
pub enum DerivationError {
    /// Nothing to run.
    #[error("a derivation needs at least one step")]
    NoSteps,
    /// Nothing to keep.
    #[error("a derivation needs at least one output")]
    NoOutputs,
    /// Nowhere to fetch from.
    #[error("a fetch needs at least one location")]
    NoLocations,
    /// More of something than its limit.
    #[error("{found} {what}; at most {limit} are allowed")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// A path of a step is in no place a step may use.
    #[error("step {step}: {what}")]
    Path {
        /// Counted from 1.
        step: usize,
        /// Which path, and what is wrong.
        #[source]
        what: NameError,
    },
    /// A step runs or reads from an input that the derivation does not have.
    #[error("step {step}: `{path}` is in the input `{input}`, which this derivation does not have")]
    UnknownInput {
        /// Counted from 1.
        step: usize,
        /// The path.
        path: GuestPath,
        /// The input it would be in.
        input: String,
    },
    /// A NUL in an argument or a variable, or a variable with a bad name.
    #[error("{what} {text:?} has a NUL, an `=` in its name, or no name")]
    BadText {
        /// Argument or variable.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The author's document is not one JSON object in the form that can be spliced.
    #[error("stdin is not a JSON object without spaces around it")]
    Stdin(#[source] Option<serde_json::Error>),
    /// The author's document has a field that the build system adds.
    #[error("stdin has the field `{0}`, which the build system itself provides")]
    StdinField(&'static str),
    /// Not a pattern.
    #[error("executable: {0}")]
    Executable(#[source] crate::glob::GlobError),
    /// The whole is too long to be encoded.
    #[error("the derivation has {found} bytes; at most {limit} are allowed", limit = limits::DERIVATION_BYTES)]
    TooLong {
        /// Bytes of its encoding.
        found: usize,
    },
}

impl Derivation {
    /// Checks a build.
    ///
    /// # Errors
    ///
    /// [`DerivationError`], the first rule of SPEC §5 that it breaks.
    pub fn build(build: Build) -> Result<Self, DerivationError> {
        build.recipe.check()?;
        at_most("inputs", build.inputs.len(), limits::INPUTS)?;
        build.recipe.check_inputs(&build.inputs)?;
        Self(Kind::Build(build)).short()
    }

    /// Checks a fetch.
    ///
    /// # Errors
    ///
    /// [`DerivationError`], the first rule of SPEC §5.3 that it breaks.
    pub fn fetch(fetch: Fetch) -> Result<Self, DerivationError> {
        if fetch.locations.is_empty() {
            return Err(DerivationError::NoLocations);
        }
        for location in &fetch.locations {
            at_most("bytes in a location", location.len(), limits::LOCATION_BYTES)?;
        }
        Self(Kind::Fetch(fetch)).short()
    }

    fn short(self) -> Result<Self, DerivationError> {
        let found = encode::encoded_len(&self);
        if found > limits::DERIVATION_BYTES {
            return Err(DerivationError::TooLong { found });
        }
        Ok(self)
    }

    /// Which kind it is.
    pub fn kind(&self) -> &Kind {
        &self.0
    }

    /// What people call it.
    pub fn name(&self) -> &Name {
        match &self.0 {
            Kind::Build(build) => &build.name,
            Kind::Fetch(fetch) => &fetch.name,
        }
    }

    /// Its outputs; a fetch has `out` alone.
    pub fn outputs(&self) -> BTreeSet<Name> {
        match &self.0 {
            Kind::Build(build) => build.recipe.outputs.clone(),
            Kind::Fetch(_) => BTreeSet::from([Name::out()]),
        }
    }

    /// The derivations it needs outputs of, each once.
    pub fn dependencies(&self) -> BTreeSet<DerivationId> {
        let Kind::Build(build) = &self.0 else {
            return BTreeSet::new();
        };
        let derivations = build.inputs.values().filter_map(|input| match input {
            Input::Output { derivation, .. } => Some(*derivation),
            Input::Nar(_) => None,
        });
        derivations.collect()
    }

    /// Replaces every input by its hash.
    ///
    /// `output` gives the hash of an output that was built or accepted.
    ///
    /// # Errors
    ///
    /// The first input that `output` knows nothing of.
    pub fn resolve(
        &self,
        mut output: impl FnMut(&DerivationId, &Name) -> Option<NarHash>,
    ) -> Result<Action, Unresolved> {
        let build = match &self.0 {
            Kind::Build(build) => build,
            Kind::Fetch(fetch) => {
                let (sri, executable) = (fetch.sri.clone(), fetch.executable);
                return Ok(Action::Fetch(FetchAction { sri, executable }));
            }
        };
        let mut inputs = BTreeMap::new();
        for (name, input) in &build.inputs {
            let hash = match input {
                Input::Nar(hash) => *hash,
                Input::Output { derivation, output: wanted } => output(derivation, wanted)
                    .ok_or_else(|| Unresolved { derivation: *derivation, output: wanted.clone() })?,
            };
            inputs.insert(name.clone(), hash);
        }
        Ok(Action::Build(BuildAction { recipe: build.recipe.clone(), inputs }))
    }

    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// Reads a canonical encoding of at most [`limits::DERIVATION_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; an encoding that breaks a rule of SPEC §5 is malformed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::DERIVATION_BYTES)
    }

    /// Its id: the hash of its encoding.
    pub fn id(&self) -> DerivationId {
        self.identified().0
    }

    /// Its id and its canonical encoding.
    pub fn identified(&self) -> (DerivationId, Vec<u8>) {
        let bytes = self.to_bytes();
        (id_of(&bytes), bytes)
    }

    /// Reads a canonical encoding as [`Derivation::from_bytes`] does, and gives its id as well.
    ///
    /// # Errors
    ///
    /// Those of [`Derivation::from_bytes`].
    pub fn identify(bytes: &[u8]) -> Result<(DerivationId, Self), DecodeError> {
        let derivation = Self::from_bytes(bytes)?;
        // What was accepted is what would be written, so it need not be written to be hashed.
        Ok((id_of(bytes), derivation))
    }
}

fn id_of(encoding: &[u8]) -> DerivationId {
    DerivationId::from_bytes(blake3::derive_key(CONTEXT, encoding))
}

/// An input whose hash is not known yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("output `{output}` of {derivation} is not known")]
pub struct Unresolved {
    /// Whose output it is.
    pub derivation: DerivationId,
    /// Which output.
    pub output: Name,
}

fn at_most(what: &'static str, found: usize, limit: usize) -> Result<(), DerivationError> {
    if found > limit {
        return Err(DerivationError::TooMany { what, found, limit });
    }
    Ok(())
}

/// Where a step may find a module, and where it may write its stdout.
const WRITABLE: &str = "`/build/`, `/tmp/` or an output";

impl Recipe {
    /// Checks what needs no inputs to be checked.
    pub(crate) fn check(&self) -> Result<(), DerivationError> {
        if self.steps.is_empty() {
            return Err(DerivationError::NoSteps);
        }
        if self.outputs.is_empty() {
            return Err(DerivationError::NoOutputs);
        }
        at_most("steps", self.steps.len(), limits::STEPS)?;
        at_most("outputs", self.outputs.len(), limits::OUTPUTS)?;
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(DerivationError::BadText { what: "variable", text: name.clone() });
            }
        }
        for pattern in &self.executable {
            Glob::new(pattern.as_str()).map_err(DerivationError::Executable)?;
        }
        for (n, step) in self.steps.iter().enumerate() {
            self.check_step(step).map_err(|what| DerivationError::Path { step: n + 1, what })?;
            if let Some(text) = step.args.iter().find(|a| a.contains('\0')) {
                return Err(DerivationError::BadText { what: "argument", text: text.clone() });
            }
        }
        check_stdin(&self.stdin)
    }

    /// Checks that steps run and read from no other inputs than those of `inputs`.
    pub(crate) fn check_inputs<V>(&self, inputs: &BTreeMap<Name, V>) -> Result<(), DerivationError> {
        for (n, step) in self.steps.iter().enumerate() {
            for path in [Some(&step.run), step.stdin.as_ref()].into_iter().flatten() {
                let Some((input, _)) = path.in_input() else { continue };
                if !inputs.contains_key(input) {
                    let (path, input) = (path.clone(), input.to_owned());
                    return Err(DerivationError::UnknownInput { step: n + 1, path, input });
                }
            }
        }
        Ok(())
    }

    fn check_step(&self, step: &Step) -> Result<(), NameError> {
        let outside = |path: &GuestPath, allowed| Err(NameError::Outside { path: path.to_string(), allowed });
        for path in [Some(&step.run), step.stdin.as_ref()].into_iter().flatten() {
            if path.in_input().is_none() && !self.writable(path) {
                return outside(path, "an input, `/build/`, `/tmp/` or an output");
            }
        }
        match &step.stdout {
            Some(path) if !self.writable(path) => outside(path, WRITABLE),
            _ => Ok(()),
        }
    }

    /// Whether `path` is below `/build`, `/tmp` or the mount of an output.
    fn writable(&self, path: &GuestPath) -> bool {
        let mut components = path.components();
        let Some(top) = components.next() else {
            return false;
        };
        let output = top.strip_prefix("out-").unwrap_or(top);
        let known = ["build", "tmp"].contains(&top)
            || self.outputs.get(output).is_some_and(|o| o.output_mount()[1..] == *top);
        known && components.next().is_some()
    }
}

/// SPEC §5.2: the author's document is spliced into the one that the guest reads, so it must be
/// exactly one object, and must not have the two fields that are added.
fn check_stdin(text: &str) -> Result<(), DerivationError> {
    if !(text.starts_with('{') && text.ends_with('}')) {
        return Err(DerivationError::Stdin(None));
    }
    let object: BTreeMap<String, serde::de::IgnoredAny> =
        serde_json::from_str(text).map_err(|e| DerivationError::Stdin(Some(e)))?;
    match ["inputs", "outputs"].into_iter().find(|f| object.contains_key(*f)) {
        Some(field) => Err(DerivationError::StdinField(field)),
        None => Ok(()),
    }
}

impl<C> Encode<C> for Step {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), WriteFailed<W::Error>> {
        e.array(5)?.encode(&self.run)?;
        list::encode(e, self.args.iter())?;
        e.encode(&self.stdin)?.encode(&self.stdout)?.encode(&self.cwd)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Step {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Malformed> {
        array(d, 5)?;
        Ok(Self {
            run: d.decode()?,
            args: list::decode(d, limits::DERIVATION_BYTES)?,
            stdin: d.decode()?,
            stdout: d.decode()?,
            cwd: d.decode()?,
        })
    }
}

impl Recipe {
    /// Writes the fields before the inputs: `steps, env, stdin`.
    pub(crate) fn encode_head<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), WriteFailed<W::Error>> {
        list::encode(e, self.steps.iter())?;
        list::encode(e, self.env.iter())?;
        e.str(&self.stdin)?.ok()
    }

    /// Writes the fields behind the inputs: `outputs, executable`.
    pub(crate) fn encode_tail<W: Write>(&self, e: &mut Encoder<W>) -> Result<(), WriteFailed<W::Error>> {
        list::encode(e, self.outputs.iter())?;
        list::encode(e, self.executable.iter())
    }

    /// Reads `steps, env, stdin`, then the inputs by `inputs`, then `outputs, executable`.
    pub(crate) fn decode<'b, I>(
        d: &mut Decoder<'b>,
        inputs: impl FnOnce(&mut Decoder<'b>) -> Result<I, Malformed>,
    ) -> Result<(Self, I), Malformed> {
        let steps = list::decode(d, limits::STEPS)?;
        let env = list::decode(d, limits::DERIVATION_BYTES)?;
        let stdin = d.decode()?;
        let inputs = inputs(d)?;
        let outputs = list::decode(d, limits::OUTPUTS)?;
        let executable = list::decode(d, limits::DERIVATION_BYTES)?;
        Ok((Self { steps, env, stdin, outputs, executable }, inputs))
    }
}

impl<C> Encode<C> for Input {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Nar(hash) => e.array(1)?.encode(hash)?.ok(),
            Self::Output { derivation, output } => e.array(2)?.encode(derivation)?.encode(output)?.ok(),
        }
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Input {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Malformed> {
        let at = d.position();
        match d.array()? {
            Some(1) => Ok(Self::Nar(d.decode()?)),
            Some(2) => Ok(Self::Output { derivation: d.decode()?, output: d.decode()? }),
            _ => Err(refuse(at, "an input is [hash] or [derivation, output]")),
        }
    }
}

impl<C> Encode<C> for Derivation {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), WriteFailed<W::Error>> {
        match &self.0 {
            Kind::Build(build) => {
                e.array(9)?.str(ABI)?.encode(&build.name)?;
                build.recipe.encode_head(e)?;
                list::encode(e, build.inputs.iter())?;
                build.recipe.encode_tail(e)?;
                let Limits { memory, seconds, disk } = &build.limits;
                e.array(3)?.encode(memory)?.encode(seconds)?.encode(disk)?.ok()
            }
            Kind::Fetch(fetch) => {
                e.array(6)?.str(FETCH)?.encode(&fetch.name)?;
                list::encode(e, fetch.locations.iter())?;
                encode_sri(e, &fetch.sri)?;
                e.bool(fetch.executable)?.ok()
            }
        }
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Derivation {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Malformed> {
        let at = d.position();
        let len = d.array()?;
        let derivation = match d.str()? {
            ABI => {
                elements(at, len, 9)?;
                let name = d.decode()?;
                let (recipe, inputs) = Recipe::decode(d, |d| list::decode(d, limits::INPUTS))?;
                array(d, 3)?;
                let limits = Limits { memory: d.decode()?, seconds: d.decode()?, disk: d.decode()? };
                Self::build(Build { name, recipe, inputs, limits })
            }
            FETCH => {
                elements(at, len, 6)?;
                Self::fetch(Fetch {
                    name: d.decode()?,
                    locations: list::decode(d, limits::DERIVATION_BYTES)?,
                    sri: decode_sri(d)?,
                    executable: d.bool()?,
                })
            }
            other => return Err(refuse(at, format!("unknown derivation `{other}`"))),
        };
        derivation.map_err(|e| refuse(at, e))
    }
}

/// Writes `algorithm, digest`.
pub(crate) fn encode_sri<W: Write>(e: &mut Encoder<W>, sri: &Sri) -> Result<(), WriteFailed<W::Error>> {
    e.str(sri.algorithm().name())?.bytes(sri.digest())?.ok()
}

/// Reads `algorithm, digest`.
pub(crate) fn decode_sri(d: &mut Decoder<'_>) -> Result<Sri, Malformed> {
    let at = d.position();
    let name = d.str()?;
    let algorithm =
        Algorithm::named(name).ok_or_else(|| refuse(at, format!("unknown hash function `{name}`")))?;
    Sri::new(algorithm, d.bytes()?.to_vec()).map_err(|e| refuse(at, e))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Build {
        let path = |p: &str| GuestPath::new(p).unwrap();
        Build {
            name: Name::new("hello").unwrap(),
            recipe: Recipe {
                steps: vec![Step {
                    run: path("/in/clang/clang.wasm"),
                    args: vec!["clang".into(), "-c".into()],
                    stdin: None,
                    stdout: Some(path("/build/log")),
                    cwd: None,
                }],
                env: BTreeMap::from([("A".into(), "1".into())]),
                stdin: "{}".into(),
                outputs: BTreeSet::from([Name::out()]),
                executable: BTreeSet::new(),
            },
            inputs: BTreeMap::from([(Name::new("clang").unwrap(), Input::Nar(NarHash::from_bytes([1; 32])))]),
            limits: Limits::default(),
        }
    }

    #[test]
    fn round_trip() {
        let derivation = Derivation::build(sample()).unwrap();
        let bytes = derivation.to_bytes();
        assert_eq!(Derivation::from_bytes(&bytes).unwrap(), derivation);
        assert_eq!(derivation.identified(), (derivation.id(), bytes.clone()));
        assert_eq!(Derivation::identify(&bytes).unwrap(), (derivation.id(), derivation));
        for cut in 0..bytes.len() {
            assert!(Derivation::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn what_cannot_change_the_output_does_not_change_the_action() {
        let mut other = sample();
        other.name = Name::new("renamed").unwrap();
        other.limits.memory = Some(1);
        let action = |b| Derivation::build(b).unwrap().resolve(|_, _| None).unwrap().id();
        assert_eq!(action(sample()), action(other));
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Build), why: &str) {
        let mut build = sample();
        change(&mut build);
        let error = Derivation::build(build).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn rules() {
        let path = |p: &str| GuestPath::new(p).unwrap();
        refused(|b| b.recipe.steps.clear(), "at least one step");
        refused(|b| b.recipe.outputs.clear(), "at least one output");
        refused(|b| b.inputs.clear(), "in the input `clang`");
        refused(|b| b.recipe.steps[0].run = path("/bin/sh"), "step 1");
        refused(|b| b.recipe.steps[0].run = path("/build"), "step 1");
        refused(|b| b.recipe.steps[0].stdout = Some(path("/in/clang/x")), "step 1");
        refused(|b| b.recipe.steps[0].stdout = Some(path("/out-dev/x")), "step 1");
        refused(|b| b.recipe.steps[0].args.push("a\0b".into()), "argument");
        refused(|b| b.recipe.env = [("A=B".into(), String::new())].into(), "variable");
        refused(|b| b.recipe.executable = ["/x".into()].into(), "executable");
        for bad in ["", "[]", " {}", "{} ", "{\"a\":}", "{}{}"] {
            refused(|b| b.recipe.stdin = bad.into(), "JSON object");
        }
        refused(|b| b.recipe.stdin = "{\"inputs\":1}".into(), "`inputs`");
    }
}
