//! One evaluation, in this process: from a file to the derivations that an attribute names.

use std::{rc::Rc, sync::Arc};

use super::{
    Attribute, Mode, Pack, Request, Root,
    attribute::Path,
    error::{At, EvalError, Fault, nearest},
    handle::{self, Token},
    imports::Imports,
    json,
    library::{self, Globals},
    nesting,
    read::found,
    session::{CALLS, Made, Session, Watch},
    wire::Outcome,
};
use jrsonnet_evaluator::{
    Error, IStr, ObjValue, Result, State, Val,
    parser::{BinaryOpType, Expr, FieldName, LocExpr, Member, ObjBody, ParserSettings, Source, parse},
    stack::limit_stack_depth,
};

/// Objects inside each other that are searched for derivations.
const DEPTH: usize = 32;

/// Attributes that an error lists.
const KNOWN: usize = 50;

/// Evaluates `request`; `made` gets the derivations, each as soon as it is made, its inputs before it.
pub(super) fn run(
    request: &Request,
    pack: Pack,
    watch: Arc<Watch>,
    made: Made,
) -> std::result::Result<Outcome, EvalError> {
    let session = Rc::new(Session::new(request.root.clone(), pack, watch, made));
    let _limit = limit_stack_depth(CALLS);
    let mut run = Run { session: session.clone(), at: Path::default() };
    run.request(request).map_err(|error| {
        let attribute = run.at.to_string();
        let mut error = session.explain(&error, Some(attribute.as_str()).filter(|a| !a.is_empty()));
        error.at.get_or_insert_with(|| written(request, &run.at));
        error.cleaned()
    })
}

struct Run {
    session: Rc<Session>,
    /// The attribute that is being evaluated, for errors.
    at: Path,
}

impl Run {
    fn request(&mut self, request: &Request) -> Result<Outcome> {
        let path = match &request.attribute {
            Some(text) => Path::parse(text).map_err(|fault| self.session.fail(fault))?,
            None => Path::default(),
        };
        let mut builder = State::builder();
        builder.import_resolver(Imports::new(self.session.clone()));
        builder.context_initializer(Globals::new(&self.session));
        let state = builder.build();
        let whole = called(state.import(&request.file)?)?;
        let selected = self.select(whole, &path)?;
        match request.mode {
            Mode::Build => self.build(&selected, &path),
            Mode::Json => self.json(&selected),
            Mode::List => self.list(&selected, &path),
        }
    }

    /// Walks along the path, evaluating nothing beside it.
    fn select(&mut self, whole: Val, path: &Path) -> Result<Val> {
        let mut at = Path::default();
        let mut val = whole;
        for name in &path.0 {
            let inner = at.join(name);
            self.at = inner.clone();
            let Val::Obj(object) = &val else {
                let (path, parent) = (inner.to_string(), whole_or(&at));
                return Err(self.session.fail(Fault::NoAttributes { path, parent, found: found(&val) }));
            };
            let Some(field) = object.get(IStr::from(name.as_str()))? else {
                return Err(self.session.fail(missing(object, &at, name)));
            };
            (val, at) = (field, inner);
        }
        Ok(val)
    }

    fn build(&mut self, selected: &Val, path: &Path) -> Result<Outcome> {
        let mut handles = Vec::new();
        self.collect(selected, path, &mut handles)?;
        if handles.is_empty() {
            self.at = path.clone();
            let attribute = whole_or(path);
            return Err(self.session.fail(match selected {
                Val::Obj(_) if handle::token(selected)?.is_none() => Fault::NoDerivations { attribute },
                other => Fault::NotADerivation { attribute, found: found(other) },
            }));
        }
        let mut roots = Vec::new();
        for (path, token) in handles {
            self.at = path.clone();
            let (node, output) = match token {
                Token::Derivation(node) => (node, None),
                Token::Output(node, output) => (node, Some(output)),
                Token::Source(_) => continue,
            };
            roots.push(Root {
                attribute: path.to_string(),
                derivation: handle::resolve(&self.session, &node)?,
                output,
                main: node.note(&self.session, "mainProgram")?,
                description: node.note(&self.session, "description")?,
            });
        }
        Ok(Outcome { roots, sources: self.session.sources(), ..Outcome::default() })
    }

    /// The derivations in a value, with their paths: itself, or those in its visible fields.
    fn collect(&mut self, val: &Val, path: &Path, into: &mut Vec<(Path, Token)>) -> Result<()> {
        self.at = path.clone();
        match (handle::token(val)?, val) {
            (Some(Token::Source(_)), _) => Ok(()),
            (Some(token), _) => {
                into.push((path.clone(), token));
                Ok(())
            }
            (None, Val::Obj(object)) => {
                if path.0.len() >= DEPTH {
                    let (what, found) = ("attributes".into(), path.0.len());
                    return Err(self.session.fail(Fault::TooDeep { what, found, limit: DEPTH }));
                }
                for name in object.fields() {
                    let inner = path.join(&name);
                    self.at = inner.clone();
                    if let Some(field) = object.get(name)? {
                        self.collect(&field, &inner, into)?;
                    }
                }
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    fn json(&mut self, selected: &Val) -> Result<Outcome> {
        let session = self.session.clone();
        let mut wanted = Vec::new();
        let text = json::write(&session, selected, Some(2), &mut |token| {
            let mut fields = Vec::new();
            match token {
                Token::Derivation(node) | Token::Output(node, _) => {
                    let id = handle::resolve(&session, node)?;
                    wanted.push(id);
                    fields.push(("drv", id.to_string()));
                    fields.push(("name", node.called()));
                    if let Token::Output(_, output) = token {
                        fields.push(("output", output.to_string()));
                    }
                }
                Token::Source(source) => {
                    fields.push(("nar", handle::pack(&session, source)?.to_string()));
                    fields.push(("path", source.path.to_string_lossy().into_owned()));
                }
            }
            Ok(fields)
        })?;
        Ok(Outcome { json: Some(text), wanted, sources: self.session.sources(), ..Outcome::default() })
    }

    /// The visible fields of an object, and what each is. A field that fails is an error there only.
    fn list(&mut self, selected: &Val, path: &Path) -> Result<Outcome> {
        let mut attributes = Vec::new();
        if let (None, Val::Obj(object)) = (handle::token(selected)?, selected) {
            for name in object.fields() {
                attributes.push(self.attribute_of(object, &name, path));
            }
        }
        Ok(Outcome { attributes, ..Outcome::default() })
    }

    fn attribute_of(&self, object: &ObjValue, name: &IStr, path: &Path) -> Attribute {
        let described = || -> Result<(String, Option<String>)> {
            let val = object.get(name.clone())?.unwrap_or_default();
            Ok(match handle::token(&val)? {
                Some(Token::Derivation(node)) => {
                    ("derivation".into(), node.note(&self.session, "description")?)
                }
                Some(Token::Output(..)) => ("output".into(), None),
                Some(Token::Source(_)) => ("source".into(), None),
                None => (val.value_type().to_string(), None),
            })
        };
        let (kind, description) = described().unwrap_or_else(|_: Error| ("error".into(), None));
        Attribute { path: path.join(name).to_string(), kind, description }
    }
}

/// A file may be a function, if it can be called without arguments.
fn called(val: Val) -> Result<Val> {
    match &val {
        Val::Func(function) if function.params_len() == 0 => library::apply(function, &()),
        _ => Ok(val),
    }
}

/// Where an attribute is written, as far as that can be told without evaluating.
///
/// For errors that happen outside of any call: there the evaluator itself knows no place.
fn written(request: &Request, path: &Path) -> At {
    let name = request.file.to_string_lossy().into_owned();
    let whole = At::file(name.clone());
    // It was read before, or there is nothing to look at.
    let Ok(text) = std::fs::read_to_string(request.root.join(&request.file)) else {
        return whole;
    };
    if path.0.is_empty() || nesting::scan(&text).is_err() {
        return whole;
    }
    let source = Source::new_virtual(IStr::from(""), IStr::from(text.as_str()));
    let Ok(mut expr) = parse(&text, &ParserSettings { source }) else {
        return whole;
    };
    let mut found = None;
    for name in &path.0 {
        let Some(inner) = field(&expr, name) else { break };
        found = Some(inner.span().1);
        expr = inner;
    }
    found.map_or(whole, |byte| At::of_byte(name, &text, byte as usize))
}

/// The text of a field of the object that `expr` plainly is.
fn field(expr: &LocExpr, name: &str) -> Option<LocExpr> {
    match expr.expr() {
        Expr::LocalExpr(_, inner) | Expr::AssertExpr(_, inner) | Expr::Parened(inner) => field(inner, name),
        Expr::BinaryOp(left, BinaryOpType::Add, right) => field(right, name).or_else(|| field(left, name)),
        Expr::Obj(ObjBody::MemberList(members)) => members.iter().find_map(|member| match member {
            Member::Field(member) if matches!(&member.name, FieldName::Fixed(n) if &**n == name) => {
                Some(member.value.clone())
            }
            _ => None,
        }),
        _ => None,
    }
}

fn whole_or(path: &Path) -> String {
    if path.0.is_empty() { ".".into() } else { path.to_string() }
}

fn missing(object: &ObjValue, at: &Path, name: &str) -> Fault {
    let fields: Vec<IStr> = object.fields_ex(true).into_iter().filter(|f| handle::shown(f)).collect();
    let known = fields.iter().take(KNOWN).map(|f| at.join(f).to_string()).collect();
    let nearest = nearest(name, fields.iter().map(|f| &**f)).map(|n| at.join(&n).to_string());
    Fault::MissingAttribute { path: at.join(name).to_string(), nearest, known }
}
