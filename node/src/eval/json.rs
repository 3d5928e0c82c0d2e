//! Jsonnet values as JSON text: what steps read on stdin, and what `eval` prints.

use std::fmt::Write;

use jrsonnet_evaluator::{IStr, Result, Val};

use super::{
    attribute::Path,
    error::Fault,
    handle::{self, Token},
    read::found,
    session::Session,
};

/// Objects and arrays inside each other; readers of JSON commonly stop at 128.
const DEPTH: usize = 120;

/// Gives the fields of the object that a handle inside the value becomes.
type OnHandle<'a> = &'a mut dyn FnMut(&Token) -> Result<Vec<(&'static str, String)>>;

/// Writes JSON.
struct Writer<'a> {
    session: &'a Session,
    on_handle: OnHandle<'a>,
    /// Spaces for each level; none for everything on one line.
    indent: Option<usize>,
    out: String,
    /// Where the value is that is being written.
    path: Vec<Part>,
}

enum Part {
    Field(IStr),
    Element(usize),
}

/// The value as text, its fields in the order of their bytes.
pub(super) fn write(
    session: &Session,
    val: &Val,
    indent: Option<usize>,
    on_handle: OnHandle<'_>,
) -> Result<String> {
    let mut writer = Writer { session, on_handle, indent, out: String::new(), path: Vec::new() };
    writer.value(val)?;
    Ok(writer.out)
}

impl Writer<'_> {
    fn value(&mut self, val: &Val) -> Result<()> {
        if self.path.len() > DEPTH {
            let found = self.path.len();
            return Err(self.session.fail(Fault::TooDeep { what: "values".into(), found, limit: DEPTH }));
        }
        if let Some(token) = handle::token(val)? {
            let fields = (self.on_handle)(&token)?;
            return self.list('{', '}', fields.iter(), |this, (name, value)| {
                this.text(name);
                this.colon();
                this.text(value);
                Ok(())
            });
        }
        match val {
            Val::Null => self.out.push_str("null"),
            Val::Bool(b) => self.out.push_str(if *b { "true" } else { "false" }),
            Val::Num(n) => write!(self.out, "{n}").expect("writing to a string"),
            Val::Str(text) => self.text(&text.clone().into_flat()),
            Val::Arr(array) => self.list('[', ']', array.iter().enumerate(), |this, (n, element)| {
                this.inside(Part::Element(n), &element?)
            })?,
            Val::Obj(object) => {
                object.run_assertions()?;
                self.list('{', '}', object.iter(), |this, (name, field)| {
                    this.text(&name);
                    this.colon();
                    this.inside(Part::Field(name), &field?)
                })?;
            }
            Val::Func(_) => {
                let part = |part: &Part| match part {
                    Part::Field(name) => name.to_string(),
                    Part::Element(n) => n.to_string(),
                };
                let path = Path(self.path.iter().map(part).collect()).to_string();
                return Err(self.session.fail(Fault::NotJson { path, found: found(val) }));
            }
        }
        Ok(())
    }

    fn inside(&mut self, part: Part, val: &Val) -> Result<()> {
        self.path.push(part);
        self.value(val)?;
        self.path.pop();
        Ok(())
    }

    fn list<T>(
        &mut self,
        open: char,
        close: char,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<()>,
    ) -> Result<()> {
        self.out.push(open);
        let mut any = false;
        for item in items {
            if any {
                self.out.push(',');
            }
            any = true;
            self.line(1);
            write(self, item)?;
        }
        if any {
            self.line(0);
        }
        self.out.push(close);
        Ok(())
    }

    /// Begins a line, `deeper` levels inside the current value.
    fn line(&mut self, deeper: usize) {
        if let Some(indent) = self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * (self.path.len() + deeper)));
        }
    }

    fn colon(&mut self) {
        self.out.push_str(if self.indent.is_some() { ": " } else { ":" });
    }

    fn text(&mut self, text: &str) {
        if text.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\') {
            self.out.push_str(&serde_json::Value::from(text).to_string());
        } else {
            self.out.push('"');
            self.out.push_str(text);
            self.out.push('"');
        }
    }
}
