//! Modules: where every part of one is.
//!
//! Function bodies are not decoded here, so reading a module costs its parts and not its size.

use std::ops::Range;

use wasmparser::{
    BinaryReader, DataKind, Element, Export, ExternalKind, FromReader, FunctionBody, Global, KnownCustom,
    Name, NameMap, Naming, Parser, Payload, SectionLimited, TypeRef,
};

pub(super) use wasmparser::Import;

use super::{ItemKind, limits};

/// Ids of sections.
const CUSTOM: u8 = 0;
const TYPES: u8 = 1;
const CODE: u8 = 10;
const DATA: u8 = 11;

/// Why a module cannot be compared part by part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    /// It is not well formed.
    #[error("byte {at}: {message}")]
    Format { at: usize, message: String },
    /// Not as many functions as were announced.
    #[error("{announced} functions are announced, and there are {found}")]
    Functions { announced: usize, found: usize },
    /// More parts of a kind than are looked at.
    #[error("more than {most} {what}")]
    TooMany { what: &'static str, most: usize },
    /// A part that is longer than what is looked at.
    #[error("{what} of {length} bytes; at most {most} are looked into")]
    Long { what: &'static str, length: usize, most: usize },
}

impl From<wasmparser::Error> for Damage {
    fn from(error: wasmparser::Error) -> Self {
        Self::Format { at: error.offset(), message: error.message().into() }
    }
}

/// A module, by its parts.
#[derive(Default)]
pub(crate) struct Module<'a> {
    bytes: &'a [u8],
    pub(super) sections: Vec<SectionAt<'a>>,
    pub(super) imports: Vec<Import<'a>>,
    /// Types by their bytes; those of one recursive group are told apart by their place in it.
    pub(super) types: Vec<(&'a [u8], u32)>,
    /// Types of all functions, the imported first.
    pub(super) function_types: Vec<u32>,
    pub(super) imported_functions: u32,
    bodies: Vec<Range<u32>>,
    pub(super) imported_globals: u32,
    globals: Vec<Global<'a>>,
    pub(super) exports: Vec<Export<'a>>,
    pub(super) elements: Vec<Range<u32>>,
    pub(super) segments: Vec<Segment<'a>>,
    /// Names of functions and of globals, by index.
    function_names: Vec<Option<&'a str>>,
    global_names: Vec<Option<&'a str>>,
}

/// A section of a module.
pub(super) struct SectionAt<'a> {
    id: u8,
    pub(super) custom: Option<&'a str>,
    range: Range<usize>,
}

/// A segment of memory.
pub(super) struct Segment<'a> {
    pub(super) kind: DataKind<'a>,
    pub(super) bytes: &'a [u8],
}

impl<'a> Module<'a> {
    /// Reads a module, which is the whole of `bytes`.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Damage> {
        short_enough("a module", bytes.len(), limits::MODULE_BYTES)?;
        let mut module = Self { bytes, ..Self::default() };
        for payload in Parser::new(0).parse_all(bytes) {
            module.payload(payload?)?;
        }
        let (announced, found) =
            (module.function_types.len(), module.imported_functions as usize + module.bodies.len());
        if announced != found {
            return Err(Damage::Functions { announced, found });
        }
        module.name_by_exports();
        Ok(module)
    }

    fn payload(&mut self, payload: Payload<'a>) -> Result<(), Damage> {
        if let Some((id, range)) = payload.as_section() {
            let (custom, range) = match &payload {
                Payload::CustomSection(custom) => (Some(custom.name()), custom.data_offset()..range.end),
                _ => (None, range),
            };
            match id {
                CUSTOM | CODE | DATA => {}
                TYPES => short_enough("a type section", range.len(), limits::TYPES_BYTES)?,
                _ => short_enough("a section", range.len(), limits::SECTION_BYTES)?,
            }
            push(&mut self.sections, SectionAt { id, custom, range }, "sections", limits::SECTIONS)?;
        }
        match payload {
            Payload::TypeSection(section) => self.read_types(section)?,
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    self.import(import?)?;
                }
            }
            Payload::FunctionSection(section) => {
                for ty in section {
                    push(&mut self.function_types, ty?, "functions", limits::FUNCTIONS)?;
                }
            }
            Payload::CodeSectionEntry(body) => {
                short_enough("a function", body.range().len(), limits::FUNCTION_BYTES)?;
                push(&mut self.bodies, short(body.range()), "functions", limits::FUNCTIONS)?;
            }
            Payload::GlobalSection(section) => collect(&mut self.globals, section, "globals")?,
            Payload::ExportSection(section) => collect(&mut self.exports, section, "exports")?,
            Payload::ElementSection(section) => {
                for element in section {
                    push(&mut self.elements, short(element?.range), "element segments", limits::ITEMS)?;
                }
            }
            Payload::DataSection(section) => {
                for data in section {
                    let data = data?;
                    let segment = Segment { kind: data.kind, bytes: data.data };
                    push(&mut self.segments, segment, "data segments", limits::ITEMS)?;
                }
            }
            Payload::CustomSection(section) => {
                if let KnownCustom::Name(names) = section.as_known() {
                    // Names are for people: where they are damaged, there are none from there on.
                    for name in names.map_while(Result::ok) {
                        match name {
                            Name::Function(map) => collect_names(&mut self.function_names, map),
                            Name::Global(map) => collect_names(&mut self.global_names, map),
                            _ => {}
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn import(&mut self, import: Import<'a>) -> Result<(), Damage> {
        match import.ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => {
                self.imported_functions += 1;
                push(&mut self.function_types, ty, "functions", limits::FUNCTIONS)?;
            }
            TypeRef::Global(_) => self.imported_globals += 1,
            TypeRef::Table(_) | TypeRef::Memory(_) | TypeRef::Tag(_) => {}
        }
        push(&mut self.imports, import, "imports", limits::ITEMS)
    }

    fn read_types(&mut self, section: wasmparser::TypeSectionReader<'a>) -> Result<(), Damage> {
        let range = section.range();
        let mut before: Option<(usize, u32)> = None;
        for group in section.into_iter_with_offsets() {
            let (at, group) = group?;
            self.types_until(before, at)?;
            before = Some((at, group.types().count() as u32));
        }
        self.types_until(before, range.end)
    }

    /// Keeps the types of a group that begins at one place, and ends at another.
    fn types_until(&mut self, group: Option<(usize, u32)>, end: usize) -> Result<(), Damage> {
        let Some((at, count)) = group else { return Ok(()) };
        for nth in 0..count {
            push(&mut self.types, (&self.bytes[at..end], nth), "types", limits::ITEMS)?;
        }
        Ok(())
    }

    /// Functions without a name have that of their export.
    fn name_by_exports(&mut self) {
        for export in &self.exports {
            let names = match export.kind {
                ExternalKind::Func | ExternalKind::FuncExact => &mut self.function_names,
                ExternalKind::Global => &mut self.global_names,
                ExternalKind::Table | ExternalKind::Memory | ExternalKind::Tag => continue,
            };
            name(names, Naming { index: export.index, name: export.name });
        }
    }

    pub(super) fn function_name(&self, index: u32) -> Option<&'a str> {
        self.function_names.get(index as usize).copied().flatten()
    }

    pub(super) fn global_name(&self, index: u32) -> Option<&'a str> {
        self.global_names.get(index as usize).copied().flatten()
    }

    /// Of these functions, those that have a name.
    pub(super) fn by_name(&self, functions: Vec<u32>) -> Vec<(&'a str, u32)> {
        functions.into_iter().filter_map(|at| Some((self.function_name(at)?, at))).collect()
    }

    /// Of these globals, those that have a name.
    pub(super) fn globals_by_name(&self, globals: Vec<u32>) -> Vec<(&'a str, u32)> {
        globals.into_iter().filter_map(|at| Some((self.global_name(at)?, at))).collect()
    }

    /// The body of a function of its own.
    pub(super) fn body(&self, index: u32) -> Option<FunctionBody<'a>> {
        let range = self.bodies.get(index.checked_sub(self.imported_functions)? as usize)?;
        Some(FunctionBody::new(self.reader(range)))
    }

    /// Its bytes; none if there is no such function.
    pub(super) fn body_bytes(&self, index: u32) -> &'a [u8] {
        self.body(index).map(|body| self.slice(body.range())).unwrap_or_default()
    }

    pub(super) fn global(&self, index: u32) -> Option<&Global<'a>> {
        self.globals.get(index.checked_sub(self.imported_globals)? as usize)
    }

    /// How many globals there are, the imported included.
    pub(super) fn global_count(&self) -> u32 {
        self.imported_globals + self.globals.len() as u32
    }

    pub(super) fn element(&self, index: u32) -> Option<Element<'a>> {
        // It was read before.
        Element::from_reader(&mut self.reader(self.elements.get(index as usize)?)).ok()
    }

    fn reader(&self, range: &Range<u32>) -> BinaryReader<'a> {
        let range = range.start as usize..range.end as usize;
        BinaryReader::new(&self.bytes[range.clone()], range.start)
    }

    /// The bytes of the module from one offset to another.
    pub(super) fn slice(&self, range: Range<usize>) -> &'a [u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    pub(super) fn section(&self, section: &SectionAt<'_>) -> &'a [u8] {
        self.slice(section.range.clone())
    }

    pub(super) fn section_keys(&self) -> Vec<(u8, &'a str)> {
        self.sections.iter().map(|section| (section.id, section.custom.unwrap_or_default())).collect()
    }

    pub(super) fn import_keys(&self) -> Vec<(&'a str, &'a str)> {
        self.import_keys_of(|_| true)
    }

    /// The names of imports of some type.
    pub(super) fn import_keys_of(&self, test: fn(&TypeRef) -> bool) -> Vec<(&'a str, &'a str)> {
        let imports = self.imports.iter().filter(|import| test(&import.ty));
        imports.map(|import| (import.module, import.name)).collect()
    }

    pub(super) fn export_keys(&self) -> Vec<&'a str> {
        self.exports.iter().map(|export| export.name).collect()
    }
}

impl SectionAt<'_> {
    /// What a section holds.
    pub(super) fn name(&self) -> &str {
        match (self.custom, self.id) {
            (Some(name), _) => name,
            (None, TYPES) => "types",
            (None, 2) => "imports",
            (None, 3) => "function types",
            (None, 4) => "tables",
            (None, 5) => "memories",
            (None, 6) => "globals",
            (None, 7) => "exports",
            (None, 8) => "start",
            (None, 9) => "elements",
            (None, CODE) => "code",
            (None, DATA) => "data",
            (None, 12) => "data count",
            (None, 13) => "tags",
            (None, _) => "unknown",
        }
    }

    /// The kind of items that say what differs in it, if there is one.
    pub(super) fn items(&self) -> Option<ItemKind> {
        match self.id {
            2 => Some(ItemKind::Import),
            3 | CODE => Some(ItemKind::Function),
            6 => Some(ItemKind::Global),
            7 => Some(ItemKind::Export),
            9 => Some(ItemKind::Element),
            DATA => Some(ItemKind::Data),
            _ => None,
        }
    }
}

fn short(range: Range<usize>) -> Range<u32> {
    range.start as u32..range.end as u32
}

fn short_enough(what: &'static str, length: usize, most: usize) -> Result<(), Damage> {
    if length > most {
        return Err(Damage::Long { what, length, most });
    }
    Ok(())
}

fn push<T>(to: &mut Vec<T>, item: T, what: &'static str, most: usize) -> Result<(), Damage> {
    if to.len() >= most {
        return Err(Damage::TooMany { what, most });
    }
    to.push(item);
    Ok(())
}

fn collect<'a, T: FromReader<'a>>(
    to: &mut Vec<T>,
    section: SectionLimited<'a, T>,
    what: &'static str,
) -> Result<(), Damage> {
    section.into_iter().try_for_each(|item| push(to, item?, what, limits::ITEMS))
}

fn collect_names<'a>(to: &mut Vec<Option<&'a str>>, names: NameMap<'a>) {
    for naming in names.into_iter().map_while(Result::ok) {
        name(to, naming);
    }
}

/// Keeps a name, unless there is one already, or nothing so far away can have one.
fn name<'a>(names: &mut Vec<Option<&'a str>>, Naming { index, name }: Naming<'a>) {
    let index = index as usize;
    if index >= limits::FUNCTIONS {
        return;
    }
    if names.len() <= index {
        names.resize(index + 1, None);
    }
    names[index].get_or_insert(name);
}
