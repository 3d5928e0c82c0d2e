//! Code: the first instruction of two functions that is not the same, with those around it.

use std::collections::VecDeque;

use serde::Serialize;
use wasmparser::{
    BinaryReader, Element, ElementItems, ElementKind, FunctionBody, Operator, OperatorsReader, ValType,
};

use super::{Detail, Sides, bytes, instruction, limits, matching::Matching, module::Module};

/// Where the instructions of two functions differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Code {
    /// Bytes of the functions.
    pub lengths: Sides<u64>,
    /// Instructions before the first that differs, declarations of locals included.
    pub common: u64,
    /// How many of these are shown.
    pub shown: u64,
    /// Instructions, from some before the first that differs to some behind it.
    pub windows: Sides<Vec<Instruction>>,
}

/// An instruction, or a declaration of locals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instruction {
    /// Offset in the module.
    pub at: u64,
    /// Its text, plain (`protocol::plain`).
    pub text: String,
}

/// Compares two functions of the modules' own; nothing if they do the same. They are disassembled if
/// `disassemble`, else only their lengths are told.
pub(super) fn compare(
    left: &Module<'_>,
    right: &Module<'_>,
    matching: &Matching,
    (l, r): (u32, u32),
    disassemble: bool,
) -> Vec<Detail> {
    let mut details = Vec::new();
    if !matching.same_signature(left, right, l, r) {
        let ty = |module: &Module<'_>, at: u32| match module.function_types.get(at as usize) {
            Some(ty) => module.function_type(*ty),
            None => String::new(),
        };
        details.push(Detail::Declared(Sides { left: ty(left, l), right: ty(right, r) }));
    }
    let (Some(a), Some(b)) = (left.body(l), right.body(r)) else { return details };
    let (x, y) = (left.body_bytes(l), right.body_bytes(r));
    let same = match matching.renumbered {
        true => matching.same_body((left, &a), (right, &b)).unwrap_or(x == y),
        false => x == y,
    };
    if same {
        return details;
    }
    if !disassemble {
        details.push(Detail::Length(bytes::lengths(x, y)));
    } else if let Ok(Some(common)) = common(&a, &b, matching) {
        let windows = Sides { left: window(&a, common, left), right: window(&b, common, right) };
        let shown = common.min(limits::INSTRUCTIONS_BEFORE as u64);
        details.push(Detail::Code(Code { lengths: bytes::lengths(x, y), common, shown, windows }));
    } else {
        // One of them is damaged, or the same instructions are written in other bytes.
        details.extend(bytes::compare(x, y).map(Detail::Bytes));
    }
    details
}

/// How many instructions two functions have in common at their beginning; `None` if all.
fn common(
    left: &FunctionBody<'_>,
    right: &FunctionBody<'_>,
    matching: &Matching,
) -> wasmparser::Result<Option<u64>> {
    let (mut left, mut right) = (Steps::of(left)?, Steps::of(right)?);
    let mut common = 0;
    loop {
        let same = match (left.next()?, right.next()?) {
            (None, None) => return Ok(None),
            (Some((_, Step::Operator(l))), Some((_, Step::Operator(r)))) => matching.same_operator(&l, &r),
            (Some((_, l)), Some((_, r))) => l == r,
            _ => false,
        };
        if !same {
            return Ok(Some(common));
        }
        common += 1;
    }
}

/// The instructions around the first that differs.
fn window(body: &FunctionBody<'_>, common: u64, module: &Module<'_>) -> Vec<Instruction> {
    let Ok(mut steps) = Steps::of(body) else { return Vec::new() };
    let mut window = VecDeque::new();
    for n in 0..common + limits::INSTRUCTIONS_AFTER as u64 {
        let Ok(Some(step)) = steps.next() else { break };
        if n < common && window.len() == limits::INSTRUCTIONS_BEFORE {
            window.pop_front();
        }
        window.push_back(step);
    }
    let shown = window.into_iter().map(|(at, step)| Instruction { at: at as u64, text: step.text(module) });
    shown.collect()
}

/// What a function is made of.
#[derive(PartialEq)]
enum Step<'a> {
    /// So many locals of a type.
    Locals(u32, ValType),
    Operator(Operator<'a>),
}

impl Step<'_> {
    fn text(&self, module: &Module<'_>) -> String {
        match self {
            Self::Locals(count, ty) => format!("local {count} × {ty}"),
            Self::Operator(op) => instruction::text(op, module),
        }
    }
}

/// What a function is made of, in order.
struct Steps<'a> {
    locals: BinaryReader<'a>,
    /// Declarations of locals that are not read yet.
    left: u32,
    operators: OperatorsReader<'a>,
}

impl<'a> Steps<'a> {
    fn of(body: &FunctionBody<'a>) -> wasmparser::Result<Self> {
        let mut locals = body.get_binary_reader();
        let left = locals.read_var_u32()?;
        Ok(Self { locals, left, operators: body.get_operators_reader()? })
    }

    /// The next, with its offset in the module.
    fn next(&mut self) -> wasmparser::Result<Option<(usize, Step<'a>)>> {
        if self.left > 0 {
            self.left -= 1;
            let at = self.locals.original_position();
            return Ok(Some((at, Step::Locals(self.locals.read_var_u32()?, self.locals.read()?))));
        }
        if self.operators.eof() {
            return Ok(None);
        }
        let (operator, at) = self.operators.read_with_offset()?;
        Ok(Some((at, Step::Operator(operator))))
    }
}

/// Where two segments of a table differ; `None` if they do not.
pub(super) fn elements(
    left: &Module<'_>,
    right: &Module<'_>,
    matching: &Matching,
    l: &Element<'_>,
    r: &Element<'_>,
) -> Option<Sides<String>> {
    let place = Sides { left: element_place(left, &l.kind), right: element_place(right, &r.kind) };
    if place.left != place.right {
        return Some(place);
    }
    match (&l.items, &r.items) {
        (ElementItems::Functions(l), ElementItems::Functions(r)) => {
            let (l, r) =
                (l.clone().into_iter().map_while(Result::ok), r.clone().into_iter().map_while(Result::ok));
            first_element(
                l,
                r,
                |l, r| matching.functions.same(*l, *r),
                |l| left.function_label(*l),
                |r| right.function_label(*r),
            )
        }
        (ElementItems::Expressions(s, l), ElementItems::Expressions(t, r)) if s == t => {
            let (l, r) =
                (l.clone().into_iter().map_while(Result::ok), r.clone().into_iter().map_while(Result::ok));
            first_element(
                l,
                r,
                |l, r| matching.same_expression(l, r),
                |l| left.expression(l),
                |r| right.expression(r),
            )
        }
        (l, r) => {
            let what = |items: &ElementItems<'_>| match items {
                ElementItems::Functions(_) => "functions".into(),
                ElementItems::Expressions(ty, _) => format!("expressions of {ty}"),
            };
            Some(Sides { left: what(l), right: what(r) })
        }
    }
}

/// The first element that is not the same, as text.
fn first_element<T>(
    mut left: impl Iterator<Item = T>,
    mut right: impl Iterator<Item = T>,
    same: impl Fn(&T, &T) -> bool,
    show_left: impl Fn(&T) -> String,
    show_right: impl Fn(&T) -> String,
) -> Option<Sides<String>> {
    for n in 0u64.. {
        let (l, r) = (left.next(), right.next());
        match (&l, &r) {
            (None, None) => break,
            (Some(l), Some(r)) if same(l, r) => continue,
            _ => {}
        }
        let text = |shown: Option<String>| match shown {
            Some(element) => format!("element {n}: {element}"),
            None => format!("{n} elements"),
        };
        return Some(Sides {
            left: text(l.as_ref().map(show_left)),
            right: text(r.as_ref().map(show_right)),
        });
    }
    None
}

fn element_place(module: &Module<'_>, kind: &ElementKind<'_>) -> String {
    match kind {
        ElementKind::Passive => "passive".into(),
        ElementKind::Declared => "declared".into(),
        ElementKind::Active { table_index, offset_expr } => {
            format!("table {} at {}", table_index.unwrap_or(0), module.expression(offset_expr))
        }
    }
}
