//! From Jsonnet values to checked fields: every refusal names the field and what it found.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use jrsonnet_evaluator::{IStr, ObjValue, Result, Val};
use protocol::{
    glob::Glob,
    name::{GuestPath, Name},
};

use super::{
    error::{Fault, clean, nearest},
    handle,
    session::Session,
};

/// What a value is, in the words of messages.
pub(super) fn found(val: &Val) -> String {
    if let Ok(Some(token)) = handle::token(val) {
        return token.described();
    }
    match val {
        Val::Null => "null".into(),
        Val::Bool(b) => format!("the boolean {b}"),
        Val::Num(n) => format!("the number {n}"),
        Val::Str(_) => "a string".into(),
        Val::Arr(_) => "an array".into(),
        Val::Obj(_) => "an object".into(),
        Val::Func(_) => "a function".into(),
    }
}

/// The field `name` of an object, if it can be had and is a text.
pub(super) fn name_of(object: &ObjValue) -> Option<String> {
    match object.get("name".into()) {
        Ok(Some(Val::Str(name))) => Some(clean(&name.into_flat())),
        _ => None,
    }
}

/// An object whose fields are read.
pub(super) struct Fields<'a> {
    session: &'a Session,
    /// Whose fields, in the words of messages.
    kind: Cow<'a, str>,
    /// The object whose field `name` says which of its kind it is.
    named: Option<ObjValue>,
    /// The path of the object inside that, empty or with a dot at its end.
    prefix: String,
    object: ObjValue,
}

impl<'a> Fields<'a> {
    /// Takes an object and refuses fields that are not in `known`.
    pub(super) fn new(
        session: &'a Session,
        kind: impl Into<Cow<'a, str>>,
        object: ObjValue,
        known: &[&str],
    ) -> Result<Self> {
        let this = Self::checked(session, kind, object, known);
        this.only(known)?;
        Ok(this)
    }

    /// Takes an object that [`Fields::new`] has taken before, with the same `known`.
    pub(super) fn checked(
        session: &'a Session,
        kind: impl Into<Cow<'a, str>>,
        object: ObjValue,
        known: &[&str],
    ) -> Self {
        let named = known.contains(&"name").then(|| object.clone());
        Self { session, kind: kind.into(), named, prefix: String::new(), object }
    }

    /// The object in a field of this one, at `path` inside it.
    fn inside(&self, path: &str, val: &Val, known: &[&str]) -> Result<Self> {
        let Val::Obj(object) = val else {
            return Err(self.value(path, "an object", val));
        };
        let prefix = format!("{}{path}.", self.prefix);
        let (kind, named) = (self.kind.clone(), self.named.clone());
        let this = Self { session: self.session, kind, named, prefix, object: object.clone() };
        this.only(known)?;
        Ok(this)
    }

    /// Whose fields, with the name if it has one.
    fn what(&self) -> String {
        match self.named.as_ref().and_then(name_of) {
            Some(name) => format!("{} `{name}`", self.kind),
            None => self.kind.clone().into_owned(),
        }
    }

    fn only(&self, known: &[&str]) -> Result<()> {
        let unknown = &mut |_, _, field: IStr, _| !known.contains(&field.as_str());
        if !self.object.enum_fields(Default::default(), unknown) {
            return Ok(());
        }
        // Which one is named does not depend on the order in which an object keeps its fields.
        for field in self.object.fields_ex(true) {
            if !known.contains(&field.as_str()) {
                return Err(self.session.fail(Fault::UnknownField {
                    what: self.what(),
                    nearest: nearest(&field, known.iter().copied()).map(|n| format!("{}{n}", self.prefix)),
                    field: format!("{}{field}", self.prefix),
                    known: known.iter().map(|k| (*k).to_owned()).collect(),
                }));
            }
        }
        Ok(())
    }

    /// The error that `val` at `path` is not `expected`.
    fn value(&self, path: &str, expected: &str, val: &Val) -> jrsonnet_evaluator::Error {
        if let (Ok(Some(token)), "a string") = (handle::token(val), expected) {
            return self.session.fail(Fault::Text { what: token.described() });
        }
        self.session.fail(Fault::Value {
            what: self.what(),
            field: format!("{}{path}", self.prefix),
            expected: expected.to_owned(),
            found: found(val),
        })
    }

    /// The error that the value at `path` breaks `rule`.
    pub(super) fn rule(&self, path: &str, rule: impl std::fmt::Display) -> jrsonnet_evaluator::Error {
        self.session.fail(Fault::Rule {
            what: self.what(),
            field: format!("{}{path}", self.prefix),
            rule: rule.to_string(),
        })
    }

    /// The value of a field; `None` if it is left out or null.
    pub(super) fn optional(&self, field: &str) -> Result<Option<Val>> {
        let field = IStr::from(field);
        // An object remembers whatever it is asked for, so it is not asked for what it does not have.
        if !self.object.has_field_include_hidden(field.clone()) {
            self.object.run_assertions()?;
            return Ok(None);
        }
        Ok(self.object.get(field)?.filter(|v| !matches!(v, Val::Null)))
    }

    fn required(&self, field: &str) -> Result<Val> {
        self.optional(field)?.ok_or_else(|| self.missing(field))
    }

    fn missing(&self, field: &str) -> jrsonnet_evaluator::Error {
        let field = format!("{}{field}", self.prefix);
        self.session.fail(Fault::MissingField { what: self.what(), field })
    }

    /// Refuses an object without one of `fields`, without evaluating them.
    pub(super) fn all(&self, fields: &[String]) -> Result<()> {
        let absent = |field: &&String| !self.object.has_field_include_hidden(field.as_str().into());
        fields.iter().find(absent).map_or(Ok(()), |field| Err(self.missing(field)))
    }

    fn text_of(&self, path: impl Fn() -> String, val: &Val) -> Result<String> {
        match val {
            Val::Str(text) => Ok(text.clone().into_flat().to_string()),
            other => Err(self.value(&path(), "a string", other)),
        }
    }

    pub(super) fn text(&self, field: &str) -> Result<String> {
        self.text_of(|| field.to_owned(), &self.required(field)?)
    }

    pub(super) fn optional_text(&self, field: &str) -> Result<Option<String>> {
        self.optional(field)?.map(|val| self.text_of(|| field.to_owned(), &val)).transpose()
    }

    pub(super) fn name(&self, field: &str) -> Result<Name> {
        Name::new(self.text(field)?).map_err(|e| self.rule(field, e))
    }

    pub(super) fn path(&self, field: &str) -> Result<GuestPath> {
        GuestPath::new(self.text(field)?).map_err(|e| self.rule(field, e))
    }

    pub(super) fn optional_path(&self, field: &str) -> Result<Option<GuestPath>> {
        let text = self.optional_text(field)?;
        text.map(|text| GuestPath::new(text).map_err(|e| self.rule(field, e))).transpose()
    }

    pub(super) fn flag(&self, field: &str) -> Result<bool> {
        match self.optional(field)? {
            None => Ok(false),
            Some(Val::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.value(field, "true or false", &other)),
        }
    }

    /// A whole number, not negative and exact.
    pub(super) fn number(&self, field: &str) -> Result<Option<u64>> {
        const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53
        let Some(val) = self.optional(field)? else {
            return Ok(None);
        };
        match &val {
            Val::Num(n) if n.get() >= 0.0 && n.get() <= EXACT && n.get().fract() == 0.0 => {
                Ok(Some(n.get() as u64))
            }
            other => Err(self.value(field, "a whole number from 0 to 2^53", other)),
        }
    }

    /// What `read` makes of the elements of an array, of each with a way to tell its path; nothing if
    /// the field is left out.
    fn array<T>(
        &self,
        field: &str,
        mut read: impl FnMut(&dyn Fn() -> String, Val) -> Result<T>,
    ) -> Result<Vec<T>> {
        match self.optional(field)? {
            None => Ok(Vec::new()),
            Some(Val::Arr(array)) => {
                let elements = array.iter().enumerate();
                elements.map(|(n, val)| read(&|| format!("{field}[{n}]"), val?)).collect()
            }
            Some(other) => Err(self.value(field, "an array", &other)),
        }
    }

    pub(super) fn texts(&self, field: &str) -> Result<Vec<String>> {
        self.array(field, |path, val| self.text_of(path, &val))
    }

    /// A set of names; `None` if the field is left out.
    pub(super) fn names(&self, field: &str) -> Result<Option<BTreeSet<Name>>> {
        if self.optional(field)?.is_none() {
            return Ok(None);
        }
        let mut names = BTreeSet::new();
        self.array(field, |path, val| {
            let name = Name::new(self.text_of(path, &val)?).map_err(|e| self.rule(&path(), e))?;
            if !names.insert(name) {
                return Err(self.rule(&path(), "the name is there twice"));
            }
            Ok(())
        })?;
        Ok(Some(names))
    }

    pub(super) fn globs(&self, field: &str) -> Result<Vec<Glob>> {
        self.array(field, |path, val| Glob::new(self.text_of(path, &val)?).map_err(|e| self.rule(&path(), e)))
    }

    /// The visible fields of an object; none if the field is left out.
    pub(super) fn entries(&self, field: &str) -> Result<Vec<(IStr, Val)>> {
        let object = match self.optional(field)? {
            None => return Ok(Vec::new()),
            Some(Val::Obj(object)) => object,
            Some(other) => return Err(self.value(field, "an object", &other)),
        };
        object.iter().map(|(name, val)| Ok((name, val?))).collect()
    }

    pub(super) fn text_map(&self, field: &str) -> Result<BTreeMap<String, String>> {
        let entries = self.entries(field)?.into_iter();
        let text = |name: &IStr, val: &Val| self.text_of(|| format!("{field}.{name}"), val);
        entries.map(|(name, val)| Ok((name.to_string(), text(&name, &val)?))).collect()
    }

    /// The objects of an array of objects.
    pub(super) fn objects(&self, field: &str, known: &[&str]) -> Result<Vec<Self>> {
        self.array(field, |path, val| self.inside(&path(), &val, known))
    }

    /// The value of a field that is an object of any fields; `None` if it is left out.
    pub(super) fn document(&self, field: &str) -> Result<Option<Val>> {
        match self.optional(field)? {
            Some(val @ Val::Obj(_)) => Ok(Some(val)),
            Some(other) => Err(self.value(field, "an object", &other)),
            None => Ok(None),
        }
    }

    /// The object in a field; `None` if it is left out.
    pub(super) fn object(&self, field: &str, known: &[&str]) -> Result<Option<Self>> {
        self.optional(field)?.map(|val| self.inside(field, &val, known)).transpose()
    }

    /// The handle that `val` at `path` is.
    pub(super) fn handle(&self, path: impl Fn() -> String, val: &Val) -> Result<handle::Token> {
        let expected = "a derivation, one of its outputs, or a source";
        handle::token(val)?.ok_or_else(|| self.value(&path(), expected, val))
    }
}
