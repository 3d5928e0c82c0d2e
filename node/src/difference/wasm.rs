//! WebAssembly modules: which of their parts differ, and functions by their instructions.
//!
//! ```text
//! module.rs       bytes ──▶ where every part is
//! matching.rs     which part of one is which of the other
//! reference.rs    where functions speak of parts by index
//! code.rs         the first instruction of two functions that differs
//! words.rs        what is said of other parts
//! instruction.rs  an instruction as text
//! ```
//!
//! Indices shift when something is inserted, so parts are not compared by index: functions are
//! found again by name, by what they do, or by where they are, and a call is the same call if it
//! calls the function that was found.

mod code;
mod instruction;
mod matching;
mod module;
mod reference;
mod words;

use protocol::plain;
use serde::Serialize;

pub use code::{Code, Instruction};
pub(super) use module::{Damage, Module};

use self::{matching::Matching, module::Segment};
use super::{Bytes, Sides, bytes, limits};

/// Where two modules differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wasm {
    /// Sections whose bytes differ.
    pub sections: Vec<Section>,
    /// Further sections whose bytes differ.
    pub omitted_sections: u64,
    /// Parts that differ, by kind, at most so many of each (`limits.rs`).
    pub items: Vec<Item>,
    /// How many there are of each kind.
    pub tallies: Vec<Tally>,
}

/// A section that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Section {
    /// What it holds; of a custom section its name, plain (`protocol::plain`).
    pub name: String,
    /// Whether it is a custom section.
    pub custom: bool,
    /// Its bytes; `None` where it is not there.
    pub lengths: Sides<Option<u64>>,
    /// Whether it holds the same on both sides, and only indices are others, or in other places.
    pub renumbered: bool,
    /// Where its bytes differ, unless more is said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Bytes>,
}

/// Kinds of parts that are compared one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ItemKind {
    /// Something imported, of whatever type.
    Import,
    /// A function of the module's own.
    Function,
    /// A global of the module's own.
    Global,
    /// An export.
    Export,
    /// A segment of a table.
    Element,
    /// A segment of memory.
    Data,
}

/// A part that is not the same in both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// What it is.
    pub kind: ItemKind,
    /// Its name, plain; empty if it has none.
    pub name: String,
    /// Its index; `None` where it is not there. Functions and globals are counted with the imported.
    pub indices: Sides<Option<u32>>,
    /// What is not the same; nothing if only one side has it.
    pub details: Vec<Detail>,
}

/// What is not the same in a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Detail {
    /// What is said of it: a type, a place, what is exported.
    Declared(Sides<String>),
    /// Its bytes.
    Bytes(Bytes),
    /// Its instructions.
    Code(Code),
    /// Its instructions, which are not shown: those of others are.
    Length(Sides<u64>),
}

/// How many parts of a kind are not the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// The kind.
    pub kind: ItemKind,
    /// Both have them.
    pub differ: u64,
    /// Only one has them.
    pub only: Sides<u64>,
}

/// Whether a file begins like a module.
pub(super) fn is_module(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm\x01\0\0\0")
}

/// Compares modules; `None` if what differs is outside of all sections.
pub(super) fn compare(left: &Module<'_>, right: &Module<'_>) -> Option<Wasm> {
    let matching = Matching::of(left, right);
    let mut comparison = Comparison { left, right, matching, items: Vec::new(), tallies: Vec::new() };
    comparison.imports();
    comparison.functions();
    comparison.globals();
    comparison.exports();
    comparison.elements();
    comparison.segments();
    let (sections, omitted_sections) = comparison.sections();
    let found = Wasm { sections, omitted_sections, items: comparison.items, tallies: comparison.tallies };
    (!found.sections.is_empty()).then_some(found)
}

struct Comparison<'m, 'a> {
    left: &'m Module<'a>,
    right: &'m Module<'a>,
    matching: Matching,
    items: Vec<Item>,
    tallies: Vec<Tally>,
}

/// Something of both modules, or of one.
type Place = Sides<Option<u32>>;

impl Comparison<'_, '_> {
    /// Counts what is not the same, and reports it if there is room for it. Those of a kind come in a row.
    fn report(&mut self, kind: ItemKind, indices: Place, name: &str, details: Vec<Detail>) {
        let (mut tally, known) = match self.tallies.pop() {
            Some(tally) if tally.kind == kind => (tally, tally.count()),
            other => {
                self.tallies.extend(other);
                (Tally { kind, differ: 0, only: Sides { left: 0, right: 0 } }, 0)
            }
        };
        match (indices.left, indices.right) {
            (Some(_), None) => tally.only.left += 1,
            (None, Some(_)) => tally.only.right += 1,
            _ => tally.differ += 1,
        }
        self.tallies.push(tally);
        if known < limits::ITEMS_SHOWN as u64 {
            let name = plain::name(name.as_bytes(), limits::NAME_BYTES);
            self.items.push(Item { kind, name, indices, details });
        }
    }

    fn imports(&mut self) {
        let (left, right) = (self.left, self.right);
        for place in matching::keyed(&left.import_keys(), &right.import_keys()) {
            let l = place.left.and_then(|at| left.imports.get(at as usize));
            let r = place.right.and_then(|at| right.imports.get(at as usize));
            let details = match (l, r) {
                (Some(l), Some(r)) if self.matching.same_type_ref(&l.ty, &r.ty) => continue,
                (Some(l), Some(r)) => {
                    vec![Detail::Declared(Sides { left: left.type_ref(&l.ty), right: right.type_ref(&r.ty) })]
                }
                _ => Vec::new(),
            };
            let name = l.or(r).map(|import| format!("{}.{}", import.module, import.name));
            self.report(ItemKind::Import, place, &name.unwrap_or_default(), details);
        }
    }

    fn functions(&mut self) {
        let (left, right) = (self.left, self.right);
        let mut shown = 0;
        for place in self.matching.functions.places(left.imported_functions, right.imported_functions) {
            let details = match (place.left, place.right) {
                (Some(l), Some(r)) => {
                    let details =
                        code::compare(left, right, &self.matching, (l, r), shown < limits::DISASSEMBLED);
                    if details.is_empty() {
                        continue;
                    }
                    shown += usize::from(details.iter().any(|detail| matches!(detail, Detail::Code(_))));
                    details
                }
                _ => Vec::new(),
            };
            let name = place.left.and_then(|l| left.function_name(l));
            let name = name.or_else(|| place.right.and_then(|r| right.function_name(r)));
            self.report(ItemKind::Function, place, name.unwrap_or_default(), details);
        }
    }

    fn globals(&mut self) {
        let (left, right) = (self.left, self.right);
        for place in self.matching.globals.places(left.imported_globals, right.imported_globals) {
            let details =
                match (place.left.and_then(|l| left.global(l)), place.right.and_then(|r| right.global(r))) {
                    (Some(l), Some(r)) if self.matching.same_global(l, r) => continue,
                    (Some(l), Some(r)) => {
                        vec![Detail::Declared(Sides {
                            left: left.global_text(l),
                            right: right.global_text(r),
                        })]
                    }
                    _ => Vec::new(),
                };
            let name = place.left.and_then(|l| left.global_name(l));
            let name = name.or_else(|| place.right.and_then(|r| right.global_name(r)));
            self.report(ItemKind::Global, place, name.unwrap_or_default(), details);
        }
    }

    fn exports(&mut self) {
        let (left, right) = (self.left, self.right);
        for place in matching::keyed(&left.export_keys(), &right.export_keys()) {
            let l = place.left.and_then(|at| left.exports.get(at as usize));
            let r = place.right.and_then(|at| right.exports.get(at as usize));
            let details = match (l, r) {
                (Some(l), Some(r)) if self.matching.same_export(l, r) => continue,
                (Some(l), Some(r)) => {
                    vec![Detail::Declared(Sides { left: left.export_text(l), right: right.export_text(r) })]
                }
                _ => Vec::new(),
            };
            let name = l.or(r).map(|export| export.name).unwrap_or_default();
            self.report(ItemKind::Export, place, name, details);
        }
    }

    fn elements(&mut self) {
        let (left, right) = (self.left, self.right);
        for place in in_order(left.elements.len(), right.elements.len()) {
            let l = place.left.and_then(|at| left.element(at));
            let r = place.right.and_then(|at| right.element(at));
            let details = match (l, r) {
                (Some(l), Some(r)) => match code::elements(left, right, &self.matching, &l, &r) {
                    Some(said) => vec![Detail::Declared(said)],
                    None => continue,
                },
                _ => Vec::new(),
            };
            self.report(ItemKind::Element, place, "", details);
        }
    }

    fn segments(&mut self) {
        let (left, right) = (self.left, self.right);
        for place in in_order(left.segments.len(), right.segments.len()) {
            let l = place.left.and_then(|at| left.segments.get(at as usize));
            let r = place.right.and_then(|at| right.segments.get(at as usize));
            let details = match (l, r) {
                (Some(l), Some(r)) => segment(l, r),
                _ => Vec::new(),
            };
            if !details.is_empty() || l.is_none() || r.is_none() {
                self.report(ItemKind::Data, place, "", details);
            }
        }
    }

    /// Sections that differ, with their bytes where no item says what; and how many more there are.
    fn sections(&self) -> (Vec<Section>, u64) {
        let (left, right) = (self.left, self.right);
        let (mut sections, mut omitted) = (Vec::new(), 0);
        for place in matching::keyed(&left.section_keys(), &right.section_keys()) {
            let l = place.left.and_then(|at| left.sections.get(at as usize));
            let r = place.right.and_then(|at| right.sections.get(at as usize));
            let (a, b) = (l.map(|section| left.section(section)), r.map(|section| right.section(section)));
            let Some(section) = l.or(r).filter(|_| a != b) else { continue };
            if sections.len() >= limits::SECTIONS_SHOWN {
                omitted += 1;
                continue;
            }
            let differs = |kind: &ItemKind| self.tallies.iter().any(|tally| tally.kind == *kind);
            let (told, renumbered) = match section.items() {
                Some(kind) => (differs(&kind), !differs(&kind) && self.matching.renumbered),
                None => (false, false),
            };
            sections.push(Section {
                name: plain::name(section.name().as_bytes(), limits::NAME_BYTES),
                custom: section.custom.is_some(),
                lengths: Sides { left: a, right: b }.map(|bytes| bytes.map(|bytes| bytes.len() as u64)),
                renumbered,
                bytes: a.zip(b).filter(|_| !told && !renumbered).and_then(|(a, b)| bytes::compare(a, b)),
            });
        }
        (sections, omitted)
    }
}

impl Tally {
    /// How many are not the same, all together.
    pub fn count(&self) -> u64 {
        self.differ + self.only.left + self.only.right
    }
}

/// What is found again by its index.
fn in_order(left: usize, right: usize) -> impl Iterator<Item = Place> {
    let at = |index: usize, count: usize| (index < count).then_some(index as u32);
    (0..left.max(right)).map(move |index| Sides { left: at(index, left), right: at(index, right) })
}

fn segment(left: &Segment<'_>, right: &Segment<'_>) -> Vec<Detail> {
    let place = Sides::differing(left.place(), right.place()).map(Detail::Declared);
    let bytes = bytes::compare(left.bytes, right.bytes).map(Detail::Bytes);
    place.into_iter().chain(bytes).collect()
}
