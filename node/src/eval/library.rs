//! The functions that the library is made of, and the globals of every file.
//!
//! `assize.libsonnet` sees them as `native`; other files can't name them. What a helper of the
//! library makes is blamed on the author's call of that helper: [`located`] wraps the helper and
//! hands it the place of the call, which the helper passes on.

use std::{any::Any, rc::Rc};

use jrsonnet_evaluator::{
    ContextBuilder, ContextInitializer, ObjValueBuilder, Result, Thunk, Val,
    function::{CallLocation, FuncVal, TlaArg},
    parser::{Source, SourceVirtual, Span},
    trace::PathResolver,
};
use jrsonnet_gcmodule::Trace;
use jrsonnet_stdlib::{ContextInitializer as Std, TracePrinter};
use protocol::glob::Glob;

use super::{
    error::Fault,
    handle,
    imports::{self, LIBRARY, file_of},
    native::{Call, Native, Opaque},
    read::{Fields, found},
    session::{Session, place},
    worker,
};

/// What every file can name: `std`, and in the library `native` as well.
#[derive(Trace)]
pub(super) struct Globals {
    std: Std,
    native: Val,
    #[trace(skip)]
    session: Rc<Session>,
}

impl Globals {
    pub(super) fn new(session: &Rc<Session>) -> Self {
        // The paths of files are relative to the root already, so `Absolute` leaves them as they are.
        let std = Std::new(PathResolver::Absolute);
        std.settings_mut().trace_printer = Box::new(Traces);
        Self { std, native: natives(session), session: session.clone() }
    }
}

impl ContextInitializer for Globals {
    fn reserve_vars(&self) -> usize {
        2
    }

    fn populate(&self, file: Source, builder: &mut ContextBuilder) {
        self.session.watch.parsed();
        let library = file.source_path().downcast_ref::<SourceVirtual>().is_some_and(|v| &*v.0 == LIBRARY);
        if library {
            builder.bind("native", Thunk::evaluated(self.native.clone()));
        }
        self.std.populate(file, builder);
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Prints what `std.trace` is given.
struct Traces;

impl TracePrinter for Traces {
    fn print_trace(&self, loc: CallLocation<'_>, value: jrsonnet_evaluator::IStr) {
        match loc.0.and_then(place) {
            Some(at) => worker::trace(&format!("{}:{}: {value}", at.file, at.line)),
            None => worker::trace(&value),
        }
    }
}

fn natives(session: &Rc<Session>) -> Val {
    let mut object = ObjValueBuilder::new();
    let mut put = |name: &'static str, params: &[&'static str], body: Body| {
        let session = session.clone();
        let function = Native::function(name, params, move |call| body(&session, call));
        object.field(name).hide().value(function);
    };
    put("derivation", &["args"], |session, call| {
        handle::build(session, call.at, object_arg(session, "derivation", &call.value(0)?)?)
    });
    put("derivationAt", &["at", "args"], |session, call| {
        let at = revealed(&call.value(0)?);
        handle::build(session, at.as_ref(), object_arg(session, "derivation", &call.value(1)?)?)
    });
    put("fetch", &["args"], |session, call| {
        handle::fetch(session, call.at, object_arg(session, "fetch", &call.value(0)?)?)
    });
    put("source", &["path", "?exclude"], source);
    put("check", &["what", "args", "known", "required"], check);
    put("located", &["name", "helper"], located);
    Val::Obj(object.build())
}

type Body = fn(&Rc<Session>, &Call<'_>) -> Result<Val>;

fn object_arg(session: &Session, what: &str, val: &Val) -> Result<jrsonnet_evaluator::ObjValue> {
    match val {
        Val::Obj(object) => Ok(object.clone()),
        other => Err(session.fail(Fault::Value {
            what: what.to_owned(),
            field: "the argument".to_owned(),
            expected: "an object".to_owned(),
            found: found(other),
        })),
    }
}

fn revealed(at: &Val) -> Option<Span> {
    Opaque::<Option<Span>>::reveal(at).flatten()
}

/// `source(path, exclude=[])`: the path is relative to the file in which the call is written.
fn source(session: &Rc<Session>, call: &Call<'_>) -> Result<Val> {
    let mut args = ObjValueBuilder::new();
    args.field("path").value(call.value(0)?);
    args.field("exclude").value(call.arg(1).map_or(Ok(Val::Null), |exclude| exclude.evaluate())?);
    let args = Fields::new(session, "source", args.build(), &["path", "exclude"])?;
    let path = args.text("path")?;
    let exclude: Vec<Glob> = args.globs("exclude")?;
    let refused = |why: String| session.fail(Fault::Source { path: path.clone(), why });
    let Some(file) = call.at.and_then(|at| file_of(at.0.source_path())) else {
        return Err(refused("call `assize.source` yourself; a function of `std` has no directory".into()));
    };
    let resolved = imports::resolve(&session.root, file, &path).map_err(refused)?;
    Ok(handle::source(session, call.at, resolved, exclude))
}

/// `check(what, args, known, required)`: refuses fields that are not known; true if there are none.
fn check(session: &Rc<Session>, call: &Call<'_>) -> Result<Val> {
    let Val::Str(what) = call.value(0)? else {
        return Ok(Val::Null);
    };
    let what = what.into_flat();
    let names = |val: Val| -> Result<Vec<String>> {
        let Val::Arr(array) = val else {
            return Ok(Vec::new());
        };
        array.iter().map(|name| Ok(name?.to_string()?.to_string())).collect()
    };
    let (known, required) = (names(call.value(2)?)?, names(call.value(3)?)?);
    let known: Vec<&str> = known.iter().chain(&required).map(String::as_str).collect();
    let args = object_arg(session, &what, &call.value(1)?)?;
    Fields::new(session, &*what, args, &known)?.all(&required)?;
    Ok(Val::Bool(true))
}

/// `located(name, function(at, args) …)`: a function of `args` that knows where it is called.
fn located(_: &Rc<Session>, call: &Call<'_>) -> Result<Val> {
    let (Val::Str(name), Val::Func(helper)) = (call.value(0)?, call.value(1)?) else {
        return Ok(Val::Null);
    };
    Ok(Native::function(name.into_flat(), &["args"], move |call| {
        let at = TlaArg::Val(Opaque::hide(call.at.cloned()));
        let args = TlaArg::Lazy(call.arg(0).unwrap_or_default());
        apply(&helper, &(at, args))
    }))
}

/// Calls a function of Jsonnet from Rust.
pub(super) fn apply(function: &FuncVal, args: &dyn jrsonnet_evaluator::function::ArgsLike) -> Result<Val> {
    let nowhere = ContextBuilder::dangerous_empty_state().build();
    function.evaluate(nowhere, CallLocation::native(), args, false)
}
