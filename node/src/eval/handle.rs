//! Handles: the small objects by which Jsonnet code names derivations, their outputs, and sources.
//!
//! ```text
//! assize.derivation({…}) ── handle (nothing evaluated but the names of its outputs)
//!                             │ needed: an input, a root, its `drv`
//!                             ▼
//!                          resolve ── Derivation, registered in the session ──▶ DerivationId
//! ```
//!
//! A handle's identity is a [`Token`] in a hidden field, which Jsonnet code can copy but not make,
//! so a derivation can't be forged. Resolving walks from handle to handle with a list of its own
//! and not on the stack: a chain of derivations may be as long as one likes, shared inputs are
//! resolved once, and a cycle is reported with the names in it.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    rc::Rc,
};

use jrsonnet_evaluator::{
    Error, IStr, ObjValue, ObjValueBuilder, Result, ResultExt, Thunk, Unbound, Val,
    parser::{Span, Visibility},
    val::ArrValue,
};
use jrsonnet_gcmodule::Trace;
use protocol::{
    derivation::{Build, Derivation, DerivationError, Fetch, Input, Limits, Recipe, Step},
    glob::Glob,
    id::{DerivationId, NarHash},
    location::Location,
    name::Name,
};

use super::{
    error::Fault,
    json,
    native::{Opaque, lazy},
    read::{Fields, found, name_of},
    session::Session,
};

/// The hidden field that makes an object a handle.
const TOKEN: &str = "$assize";

/// The one visible field of a handle. Whatever makes text of the handle meets it and fails.
const NO_TEXT: &str = "$text";

/// Fields of a handle that no output may be called.
const RESERVED: [&str; 3] = ["name", "drv", "outputs"];

/// Fields of `assize.derivation`.
const BUILD: &[&str] = &[
    "name",
    "steps",
    "inputs",
    "env",
    "stdin",
    "outputs",
    "executable",
    "limits",
    "mainProgram",
    "description",
];

/// Fields of a step.
const STEP: &[&str] = &["run", "args", "stdin", "stdout", "cwd"];

/// Fields of `limits`.
const LIMITS: &[&str] = &["memory", "seconds", "disk"];

/// Fields of `assize.fetch`.
const FETCH: &[&str] =
    &["name", "url", "urls", "npm", "pypi", "crate", "file", "hash", "executable", "description"];

/// Derivations that need each other one after the other. More are an endless recursion.
const CHAIN: usize = 50_000;

/// What a handle stands for.
#[derive(Clone)]
pub(super) enum Token {
    /// A derivation.
    Derivation(Rc<Node>),
    /// One output of a derivation.
    Output(Rc<Node>, Name),
    /// Files of the project.
    Source(Rc<Source>),
}

/// A derivation, which is resolved when it is needed.
pub(super) struct Node {
    kind: Kind,
    args: ObjValue,
    /// The call that made it.
    at: Option<Span>,
    outputs: Rc<BTreeSet<Name>>,
    state: Cell<State>,
}

#[derive(Clone, Copy)]
enum Kind {
    Build,
    Fetch,
}

impl Kind {
    /// What it is called, and the fields it has.
    fn fields(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Build => ("derivation", BUILD),
            Self::Fetch => ("fetch", FETCH),
        }
    }
}

#[derive(Clone, Copy)]
enum State {
    Waiting,
    Running,
    Done(DerivationId),
}

/// Files of the project, which are hashed when they are needed.
pub(super) struct Source {
    /// Relative to the root, canonical.
    pub(super) path: PathBuf,
    pub(super) exclude: Vec<Glob>,
    at: Option<Span>,
    hash: Cell<Option<NarHash>>,
}

thread_local! {
    /// [`TOKEN`] as the evaluator wants it: it is looked for in every object.
    static TOKEN_FIELD: IStr = IStr::from(TOKEN);
}

/// What `val` stands for, if it is a handle.
pub(super) fn token(val: &Val) -> Result<Option<Token>> {
    let Val::Obj(object) = val else {
        return Ok(None);
    };
    let field = TOKEN_FIELD.with(IStr::clone);
    if !object.has_field_include_hidden(field.clone()) {
        return Ok(None);
    }
    Ok(object.get(field)?.as_ref().and_then(Opaque::reveal))
}

/// Whether people should see a field of that name.
pub(super) fn shown(field: &str) -> bool {
    field != TOKEN && field != NO_TEXT
}

impl Token {
    /// What it is, in the words of messages.
    pub(super) fn described(&self) -> String {
        match self {
            Self::Derivation(node) => format!("the derivation `{}`", node.called()),
            Self::Output(node, output) => format!("the output `{output}` of `{}`", node.called()),
            Self::Source(source) => format!("the source `{}`", source.path.display()),
        }
    }

    /// The derivation, and the output that an input of this handle is.
    ///
    /// Fails if it is a derivation of which an output must be named.
    fn output(&self) -> std::result::Result<Option<(&Rc<Node>, Name)>, String> {
        match self {
            Self::Source(_) => Ok(None),
            Self::Output(node, output) => Ok(Some((node, output.clone()))),
            Self::Derivation(node) => {
                let only = node.outputs.first().filter(|_| node.outputs.len() == 1);
                match only.or_else(|| node.outputs.get("out")) {
                    Some(output) => Ok(Some((node, output.clone()))),
                    None => {
                        let names: Vec<&str> = node.outputs.iter().map(Name::as_str).collect();
                        Err(format!(
                            "`{}` has the outputs {}: name one of them",
                            node.called(),
                            names.join(", ")
                        ))
                    }
                }
            }
        }
    }
}

impl Node {
    /// Its name, for messages; it may not be known or not be right.
    pub(super) fn called(&self) -> String {
        name_of(&self.args).unwrap_or_else(|| "?".into())
    }

    /// A text among its arguments that is for people only.
    pub(super) fn note(&self, session: &Session, field: &str) -> Result<Option<String>> {
        self.fields(session).optional_text(field)
    }

    fn fields<'a>(&self, session: &'a Session) -> Fields<'a> {
        let (what, known) = self.kind.fields();
        Fields::checked(session, what, self.args.clone(), known)
    }

    /// Says in an error which derivation was needed.
    fn blamed<T>(&self, result: Result<T>) -> Result<T> {
        let description = || format!("derivation `{}`", self.called());
        match &self.at {
            Some(at) => result.with_description_src(at, description),
            None => result.with_description(description),
        }
    }
}

/// Makes the handle of a build.
pub(super) fn build(session: &Rc<Session>, at: Option<&Span>, args: ObjValue) -> Result<Val> {
    node(session, Kind::Build, at, args)
}

/// Makes the handle of a fetch.
pub(super) fn fetch(session: &Rc<Session>, at: Option<&Span>, args: ObjValue) -> Result<Val> {
    node(session, Kind::Fetch, at, args)
}

fn node(session: &Rc<Session>, kind: Kind, at: Option<&Span>, args: ObjValue) -> Result<Val> {
    let (what, known) = kind.fields();
    let fields = Fields::new(session, what, args.clone(), known)?;
    let outputs = match kind {
        Kind::Build => fields.names("outputs")?,
        Kind::Fetch => None,
    };
    if let Some(name) = outputs.iter().flatten().find(|name| RESERVED.contains(&name.as_str())) {
        return Err(fields.rule("outputs", format!("no output may be called `{name}`")));
    }
    let base = session.base(outputs.unwrap_or_else(|| BTreeSet::from([Name::out()])), base);
    let (at, outputs, state) = (at.cloned(), base.outputs, Cell::new(State::Waiting));
    let node = Rc::new(Node { kind, args, at, outputs, state });
    let mut handle = ObjValueBuilder::with_capacity(1);
    handle.with_super(base.object);
    handle.field(TOKEN_FIELD.with(IStr::clone)).hide().value(Opaque::hide(Token::Derivation(node)));
    Ok(Val::Obj(handle.build()))
}

/// What the handles of all derivations with the same outputs have in common.
#[derive(Clone)]
pub(super) struct Base {
    outputs: Rc<BTreeSet<Name>>,
    /// What these handles extend: all of their fields but the token.
    object: ObjValue,
}

fn base(session: &Rc<Session>, outputs: &BTreeSet<Name>) -> Base {
    let mut base = ObjValueBuilder::new();
    let names = outputs.iter().map(|name| Val::from(name.as_str()));
    base.field("outputs").hide().value(Val::Arr(ArrValue::eager(names.collect())));
    let mut put = |field: &str, visible: Visibility, make: Box<OfNode>| {
        let field = base.field(IStr::from(field)).with_visibility(visible);
        field.bindable(Derived { session: session.clone(), make }).expect("no output has a reserved name");
    };
    for output in outputs {
        let name = output.clone();
        let make = move |session: &Rc<Session>, node: Rc<Node>| {
            // The token may have come from a handle with other outputs.
            if !node.outputs.contains(&name) {
                let (attribute, found) = (format!("{name}"), format!("no output of `{}`", node.called()));
                return Err(session.fail(Fault::NotADerivation { attribute, found }));
            }
            Ok(output_handle(session, &node, &name))
        };
        put(output.as_str(), Visibility::Hidden, Box::new(make));
    }
    let name = |_: &Rc<Session>, node: Rc<Node>| Ok(node.args.get("name".into())?.unwrap_or_default());
    put("name", Visibility::Hidden, Box::new(name));
    let drv = |session: &Rc<Session>, node: Rc<Node>| Ok(resolve(session, &node)?.to_string().into());
    put("drv", Visibility::Hidden, Box::new(drv));
    let no_text = |session: &Rc<Session>, node| {
        Err(session.fail(Fault::Text { what: Token::Derivation(node).described() }))
    };
    put(NO_TEXT, Visibility::Normal, Box::new(no_text));
    Base { outputs: Rc::new(outputs.clone()), object: base.build() }
}

type OfNode = dyn Fn(&Rc<Session>, Rc<Node>) -> Result<Val>;

/// A field that follows from the derivation for which the object that has it stands.
#[derive(Trace)]
struct Derived {
    #[trace(skip)]
    session: Rc<Session>,
    #[trace(skip)]
    make: Box<OfNode>,
}

impl Unbound for Derived {
    type Bound = Val;

    fn bind(&self, _: Option<ObjValue>, this: Option<ObjValue>) -> Result<Val> {
        let this = this.map_or(Val::Null, Val::Obj);
        match token(&this)? {
            Some(Token::Derivation(node)) => (self.make)(&self.session, node),
            // Somebody has put another value in its place.
            Some(Token::Output(..) | Token::Source(_)) | None => {
                let (attribute, found) = (TOKEN.into(), found(&this));
                Err(self.session.fail(Fault::NotADerivation { attribute, found }))
            }
        }
    }
}

fn output_handle(session: &Rc<Session>, node: &Rc<Node>, output: &Name) -> Val {
    let mut handle = handle(session, Token::Output(node.clone(), output.clone()));
    handle.field("output").hide().value(output.as_str());
    put_drv(session, &mut handle, node);
    Val::Obj(handle.build())
}

/// Makes the handle of files of the project.
pub(super) fn source(session: &Rc<Session>, at: Option<&Span>, path: PathBuf, exclude: Vec<Glob>) -> Val {
    let source = Rc::new(Source { path, exclude, at: at.cloned(), hash: Cell::new(None) });
    let mut handle = handle(session, Token::Source(source.clone()));
    handle.field("path").hide().value(source.path.to_string_lossy().into_owned());
    let session = session.clone();
    put(&mut handle, "nar", lazy(move || Ok(pack(&session, &source)?.to_string().into())));
    Val::Obj(handle.build())
}

/// An object that is recognised as `token`, without the fields that tell about it.
fn handle(session: &Rc<Session>, token: Token) -> ObjValueBuilder {
    let mut handle = ObjValueBuilder::new();
    handle.field(TOKEN).hide().value(Opaque::hide(token.clone()));
    let session = session.clone();
    let no_text = lazy(move || Err(session.fail(Fault::Text { what: token.described() })));
    handle.field(NO_TEXT).try_thunk(no_text).expect("the field is new");
    handle
}

fn put(handle: &mut ObjValueBuilder, field: &str, value: Thunk<Val>) {
    handle.field(IStr::from(field)).hide().try_thunk(value).expect("no output has a reserved name");
}

fn put_drv(session: &Rc<Session>, handle: &mut ObjValueBuilder, node: &Rc<Node>) {
    let (session, node) = (session.clone(), node.clone());
    put(handle, "drv", lazy(move || Ok(resolve(&session, &node)?.to_string().into())));
}

/// Hashes a source.
pub(super) fn pack(session: &Session, source: &Source) -> Result<NarHash> {
    if let Some(hash) = source.hash.get() {
        return Ok(hash);
    }
    let packed = session.pack(&source.path, &source.exclude).map_err(|fault| session.fail(fault));
    let hash = match &source.at {
        Some(at) => packed.with_description_src(at, || "source".to_owned()),
        None => packed,
    }?;
    source.hash.set(Some(hash));
    Ok(hash)
}

/// A derivation whose fields were read and whose inputs are being resolved.
struct Draft {
    node: Rc<Node>,
    build: Build,
    /// Inputs that are not yet in `build`.
    inputs: Vec<(Name, Rc<Node>, Name)>,
}

/// Makes the derivation of a handle, and before it those of its inputs.
pub(super) fn resolve(session: &Session, wanted: &Rc<Node>) -> Result<DerivationId> {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut next = wanted.clone();
    loop {
        let result = match next.state.get() {
            State::Done(id) => Ok(Some(id)),
            State::Running => Err(session.fail(cycle(&drafts, &next))),
            State::Waiting if drafts.len() >= CHAIN => {
                let (what, found) = ("derivations".into(), drafts.len() + 1);
                Err(session.fail(Fault::TooDeep { what, found, limit: CHAIN }))
            }
            State::Waiting => {
                next.state.set(State::Running);
                next.blamed(begin(session, &next)).map(|begun| match begun {
                    Begun::Done(id) => Some(id),
                    Begun::Draft(draft) => {
                        drafts.push(*draft);
                        None
                    }
                })
            }
        };
        match result {
            Ok(Some(id)) => next.state.set(State::Done(id)),
            Ok(None) => {}
            Err(error) => return Err(abandon(&drafts, &next, error)),
        }
        // The innermost draft either needs one more input or is complete.
        loop {
            let Some(draft) = drafts.last_mut() else {
                return match wanted.state.get() {
                    State::Done(id) => Ok(id),
                    State::Waiting | State::Running => {
                        unreachable!("with no draft left, what was wanted is done")
                    }
                };
            };
            match draft.advance() {
                Some(node) => {
                    next = node;
                    break;
                }
                None => {
                    let Some(Draft { node, build, .. }) = drafts.pop() else { continue };
                    let made = node.blamed(register(session, &build.name.clone(), Derivation::build(build)));
                    match made {
                        Ok(id) => node.state.set(State::Done(id)),
                        Err(error) => return Err(abandon(&drafts, &node, error)),
                    }
                }
            }
        }
    }
}

impl Draft {
    /// Takes over the inputs that are resolved; returns one that is not.
    fn advance(&mut self) -> Option<Rc<Node>> {
        while let Some((_, node, _)) = self.inputs.last() {
            let State::Done(derivation) = node.state.get() else {
                return Some(node.clone());
            };
            let (name, _, output) = self.inputs.pop()?;
            self.build.inputs.insert(name, Input::Output { derivation, output });
        }
        None
    }
}

/// Gives up what is running, so that it is not taken for a cycle if it is tried again.
fn abandon(drafts: &[Draft], failed: &Rc<Node>, error: Error) -> Error {
    for node in drafts.iter().map(|draft| &draft.node).chain([failed]) {
        node.state.set(State::Waiting);
    }
    error
}

/// The fault that `again` needs itself, by way of the drafts.
fn cycle(drafts: &[Draft], again: &Rc<Node>) -> Fault {
    let start = drafts.iter().position(|draft| Rc::ptr_eq(&draft.node, again)).unwrap_or(0);
    let nodes = drafts[start..].iter().map(|draft| &draft.node).chain([again]);
    Fault::Cycle { names: nodes.map(|node| node.called()).collect() }
}

enum Begun {
    Done(DerivationId),
    Draft(Box<Draft>),
}

/// Reads the fields of a derivation, without resolving the inputs.
fn begin(session: &Session, node: &Rc<Node>) -> Result<Begun> {
    let fields = node.fields(session);
    if let Kind::Fetch = node.kind {
        let fetch = read_fetch(&fields)?;
        let name = fetch.name.clone();
        return Ok(Begun::Done(register(session, &name, Derivation::fetch(fetch))?));
    }
    let name = fields.name("name")?;
    let recipe = Recipe {
        steps: read_steps(&fields)?,
        env: fields.text_map("env")?,
        stdin: read_stdin(session, &fields)?,
        outputs: (*node.outputs).clone(),
        executable: fields.globs("executable")?.iter().map(ToString::to_string).collect(),
    };
    let mut build = Build { name, recipe, inputs: BTreeMap::new(), limits: read_limits(&fields)? };
    let mut inputs = Vec::new();
    for (field, val) in fields.entries("inputs")? {
        let path = || format!("inputs.{field}");
        let name = Name::new(&*field).map_err(|e| fields.rule(&path(), e))?;
        let token = fields.handle(path, &val)?;
        match token.output().map_err(|why| fields.rule(&path(), why))? {
            Some((node, output)) => inputs.push((name, node.clone(), output)),
            None => {
                if let Token::Source(source) = &token {
                    build.inputs.insert(name, Input::Nar(pack(session, source)?));
                }
            }
        }
    }
    Ok(Begun::Draft(Box::new(Draft { node: node.clone(), build, inputs })))
}

fn register(
    session: &Session,
    name: &Name,
    made: std::result::Result<Derivation, DerivationError>,
) -> Result<DerivationId> {
    match made {
        Ok(derivation) => Ok(session.register(&derivation)),
        Err(error) => {
            let rule = chain(&error);
            Err(session.fail(Fault::Derivation { name: name.to_string(), rule }))
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn read_steps(fields: &Fields<'_>) -> Result<Vec<Step>> {
    let steps = fields.objects("steps", STEP)?.into_iter();
    steps
        .map(|step| {
            Ok(Step {
                run: step.path("run")?,
                args: step.texts("args")?,
                stdin: step.optional_path("stdin")?,
                stdout: step.optional_path("stdout")?,
                cwd: step.optional_path("cwd")?,
            })
        })
        .collect()
}

/// The author's document, on one line.
fn read_stdin(session: &Session, fields: &Fields<'_>) -> Result<String> {
    let Some(document) = fields.document("stdin")? else {
        return Ok("{}".into());
    };
    json::write(session, &document, None, &mut |token| {
        Err(session.fail(Fault::Text { what: token.described() }))
    })
}

fn read_limits(fields: &Fields<'_>) -> Result<Limits> {
    let Some(limits) = fields.object("limits", LIMITS)? else {
        return Ok(Limits::default());
    };
    Ok(Limits {
        memory: limits.number("memory")?,
        seconds: limits.number("seconds")?,
        disk: limits.number("disk")?,
    })
}

fn read_fetch(fields: &Fields<'_>) -> Result<Fetch> {
    let mut locations = Vec::new();
    let mut add = |field: &str, text: String| -> Result<()> {
        let location: Location = text.parse().map_err(|e| fields.rule(field, e))?;
        locations.push(location);
        Ok(())
    };
    if let Some(package) = fields.optional_text("npm")? {
        add("npm", format!("npm:{package}"))?;
    }
    let file = fields.optional_text("file")?;
    match fields.optional_text("pypi")? {
        Some(package) => {
            let package = package.replacen("==", "@", 1);
            let file = file.map(|file| format!("#{file}")).unwrap_or_default();
            add("pypi", format!("pypi:{package}{file}"))?;
        }
        None if file.is_some() => return Err(fields.rule("file", "it goes with `pypi` only")),
        None => {}
    }
    if let Some(package) = fields.optional_text("crate")? {
        add("crate", format!("crate:{package}"))?;
    }
    for url in fields.optional_text("url")?.into_iter().chain(fields.texts("urls")?) {
        if !(url.starts_with("https://") || url.starts_with("http://")) {
            return Err(fields.rule("url", format!("`{url}` must begin with `https://` or `http://`")));
        }
        add("url", url)?;
    }
    let Some(first) = locations.first() else {
        return Err(fields.rule("url", "one of `url`, `urls`, `npm`, `pypi` and `crate` must be there"));
    };
    let name = match fields.optional_text("name")? {
        Some(name) => Name::new(name).map_err(|e| fields.rule("name", e))?,
        None => Name::new(first.suggested_name())
            .map_err(|_| fields.rule("name", "give a name; none follows from the location"))?,
    };
    Ok(Fetch {
        name,
        locations: locations.iter().map(ToString::to_string).collect(),
        sri: fields.text("hash")?.parse().map_err(|e| fields.rule("hash", e))?,
        executable: fields.flag("executable")?,
    })
}
