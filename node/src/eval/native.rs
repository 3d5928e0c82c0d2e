//! Functions of Rust that Jsonnet can call, and thunks of Rust that Jsonnet can force.

use std::{any::Any, rc::Rc};

use jrsonnet_evaluator::{
    Context, Error, IStr, Result, Thunk, Val,
    function::{
        ArgsLike, CallLocation, FuncVal,
        builtin::{Builtin, BuiltinParam, ParamDefault, ParamName},
        parse::parse_builtin_call,
    },
    parser::Span,
    val::ThunkValue,
};
use jrsonnet_gcmodule::Trace;

/// One call of a native function.
pub(super) struct Call<'a> {
    /// Where the call is written; none if a native function calls.
    pub(super) at: Option<&'a Span>,
    args: Vec<Option<Thunk<Val>>>,
}

impl Call<'_> {
    /// The argument of that number, unevaluated; `None` if it was left out.
    pub(super) fn arg(&self, number: usize) -> Option<Thunk<Val>> {
        self.args.get(number).cloned().flatten()
    }

    /// The argument of that number, which can't be left out.
    pub(super) fn value(&self, number: usize) -> Result<Val> {
        self.arg(number).map_or(Ok(Val::Null), |thunk| thunk.evaluate())
    }
}

type Body = dyn Fn(&Call<'_>) -> Result<Val>;

/// A function of Rust.
///
/// What `body` holds on to is not traced, so a cycle through it is never collected; the process of
/// an evaluation is short.
#[derive(Trace)]
pub(super) struct Native {
    name: IStr,
    params: Vec<BuiltinParam>,
    #[trace(skip)]
    body: Rc<Body>,
}

impl Native {
    /// A function; a parameter whose name begins with `?` can be left out.
    pub(super) fn function(
        name: impl Into<IStr>,
        params: &[&'static str],
        body: impl Fn(&Call<'_>) -> Result<Val> + 'static,
    ) -> Val {
        let param = |p: &&'static str| {
            let optional = p.strip_prefix('?');
            let name = ParamName::new_static(optional.unwrap_or(p));
            BuiltinParam::new(name, ParamDefault::exists(optional.is_some()))
        };
        let params = params.iter().map(param).collect();
        Val::Func(FuncVal::builtin(Self { name: name.into(), params, body: Rc::new(body) }))
    }
}

impl Builtin for Native {
    fn name(&self) -> &str {
        &self.name
    }

    fn params(&self) -> &[BuiltinParam] {
        &self.params
    }

    fn call(&self, ctx: Context, loc: CallLocation<'_>, args: &dyn ArgsLike) -> Result<Val> {
        let args = parse_builtin_call(ctx, &self.params, args, false)?;
        (self.body)(&Call { at: loc.0, args })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A value that Jsonnet code can hold and pass on, but neither make nor look into: a function that
/// can't be called.
#[derive(Trace)]
pub(super) struct Opaque<T: 'static>(#[trace(skip)] pub(super) T);

impl<T: 'static> Opaque<T> {
    pub(super) fn hide(value: T) -> Val {
        Val::Func(FuncVal::builtin(Self(value)))
    }
}

impl<T: Clone + 'static> Opaque<T> {
    /// What is hidden in `val`, if a `T` is.
    pub(super) fn reveal(val: &Val) -> Option<T> {
        let Val::Func(FuncVal::Builtin(builtin)) = val else {
            return None;
        };
        (***builtin).as_any().downcast_ref::<Self>().map(|opaque| opaque.0.clone())
    }
}

impl<T: 'static> Builtin for Opaque<T> {
    fn name(&self) -> &str {
        "handle"
    }

    fn params(&self) -> &[BuiltinParam] {
        &[]
    }

    fn call(&self, _: Context, _: CallLocation<'_>, _: &dyn ArgsLike) -> Result<Val> {
        Err(Error::new(jrsonnet_evaluator::error::ErrorKind::RuntimeError("not a function".into())))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A value that Rust makes when Jsonnet asks for it.
#[derive(Trace)]
struct Lazy(#[trace(skip)] Box<dyn FnOnce() -> Result<Val>>);

impl ThunkValue for Lazy {
    type Output = Val;

    fn get(self: Box<Self>) -> Result<Val> {
        (self.0)()
    }
}

pub(super) fn lazy(make: impl FnOnce() -> Result<Val> + 'static) -> Thunk<Val> {
    Thunk::new(Lazy(Box::new(make)))
}
