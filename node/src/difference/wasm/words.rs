//! Words: what is said of the parts of a module, plain and short.

use protocol::plain;
use wasmparser::{
    BinaryReader, ConstExpr, DataKind, Export, ExternalKind, FromReader, Global, Operator, RecGroup, TypeRef,
};

use super::{
    instruction::{self, shortened},
    limits,
    module::{Module, Segment},
};

impl Module<'_> {
    /// What a type of a function looks like.
    pub(super) fn function_type(&self, ty: u32) -> String {
        let group = self.types.get(ty as usize).and_then(|(bytes, nth)| {
            let group = RecGroup::from_reader(&mut BinaryReader::new(bytes, 0)).ok()?;
            group.into_types().nth(*nth as usize)
        });
        let text = match &group {
            Some(ty) => ty.to_string(),
            None => format!("type {ty}, which is not there"),
        };
        shortened(&text)
    }

    pub(super) fn type_ref(&self, ty: &TypeRef) -> String {
        match ty {
            TypeRef::Func(ty) | TypeRef::FuncExact(ty) => self.function_type(*ty),
            TypeRef::Tag(tag) => format!("tag {}", self.function_type(tag.func_type_idx)),
            TypeRef::Table(_) | TypeRef::Memory(_) | TypeRef::Global(_) => shortened(&format!("{ty:?}")),
        }
    }

    pub(super) fn global_text(&self, global: &Global<'_>) -> String {
        let mutable = if global.ty.mutable { "mut " } else { "" };
        format!("{mutable}{} = {}", global.ty.content_type, self.expression(&global.init_expr))
    }

    /// A constant expression, its instructions in a row.
    pub(super) fn expression(&self, expression: &ConstExpr<'_>) -> String {
        let ops = expression.get_operators_reader().into_iter().map_while(Result::ok);
        let ops = ops.filter(|op| !matches!(op, Operator::End)).take(8);
        let ops: Vec<_> = ops.map(|op| instruction::text(&op, self)).collect();
        shortened(&ops.join("; "))
    }

    pub(super) fn export_text(&self, export: &Export<'_>) -> String {
        let index = export.index;
        match export.kind {
            ExternalKind::Func | ExternalKind::FuncExact => {
                format!("function {}", self.function_label(index))
            }
            ExternalKind::Global => format!("global {}", self.global_label(index)),
            ExternalKind::Table => format!("table {index}"),
            ExternalKind::Memory => format!("memory {index}"),
            ExternalKind::Tag => format!("tag {index}"),
        }
    }

    pub(super) fn function_label(&self, index: u32) -> String {
        label(index, self.function_name(index))
    }

    pub(super) fn global_label(&self, index: u32) -> String {
        label(index, self.global_name(index))
    }
}

impl Segment<'_> {
    /// Where it goes.
    pub(super) fn place(&self) -> String {
        match &self.kind {
            DataKind::Passive => "passive".into(),
            DataKind::Active { memory_index, offset_expr } => {
                // Names do not matter: an offset is a number, or that of a global.
                let at = Module::default().expression(offset_expr);
                format!("memory {memory_index} at {at}")
            }
        }
    }
}

fn label(index: u32, name: Option<&str>) -> String {
    match name {
        Some(name) => {
            format!("{index} ${}", plain::name(name.as_bytes(), limits::INSTRUCTION_BYTES / 2))
        }
        None => index.to_string(),
    }
}
