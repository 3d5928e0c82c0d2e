//! Instructions as text, close to WebAssembly's own, with the names of what they are about.

use std::fmt::Write as _;

use protocol::plain;
use wasmparser::{
    BlockType, BrTable, HeapType, Ieee32, Ieee64, MemArg, Operator, Ordering, RefType, ResumeTable, TryTable,
    V128, ValType,
};

use super::{limits, module::Module};

/// Targets of a table of branches that are shown.
const TARGETS: usize = 8;

/// Words that stand before a dot: `i32.add`, but `br_if`.
const SPACES: [&str; 24] = [
    "i32", "i64", "f32", "f64", "v128", "i8x16", "i16x8", "i32x4", "i64x2", "f32x4", "f64x2", "i31", "local",
    "global", "table", "memory", "data", "elem", "ref", "struct", "array", "any", "extern", "atomic",
];

/// An instruction, plain and not longer than [`limits::INSTRUCTION_BYTES`].
pub(super) fn text(op: &Operator<'_>, module: &Module<'_>) -> String {
    let mut text = String::new();
    write_operator(op, module, &mut text);
    shortened(&text)
}

/// Text of a library's making, plain and short.
pub(super) fn shortened(text: &str) -> String {
    let end = text.floor_char_boundary(limits::INSTRUCTION_BYTES);
    let cut = if end < text.len() { "…" } else { "" };
    plain::line(&text[..end]) + cut
}

/// `visit_i32_add` as `i32.add`.
fn write_name(visit: &str, to: &mut String) {
    let name = visit.strip_prefix("visit_").unwrap_or(visit);
    match name.split_once('_') {
        Some((space, rest)) if SPACES.contains(&space) => {
            // All that the atomic instructions share is a space of its own.
            let rest = rest.strip_prefix("atomic_").map_or(rest.into(), |rest| format!("atomic.{rest}"));
            let _ = write!(to, "{space}.{rest}");
        }
        _ => to.push_str(name),
    }
}

macro_rules! write_operators {
    ($(@$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        fn write_operator(op: &Operator<'_>, module: &Module<'_>, to: &mut String) {
            match op {
                $(Operator::$op $({ $($arg),* })? => {
                    write_name(stringify!($visit), to);
                    $($($arg.write(stringify!($arg), module, to);)*)?
                })*
                // The library may learn instructions before we do.
                _ => to.push_str("unknown"),
            }
        }
    };
}

wasmparser::for_each_operator!(write_operators);

/// What stands behind an instruction.
trait Operand {
    /// Writes it, with a space before it; `role` is what the library calls it.
    fn write(&self, role: &str, module: &Module<'_>, to: &mut String);
}

impl Operand for u32 {
    fn write(&self, role: &str, module: &Module<'_>, to: &mut String) {
        let _ = match role {
            "function_index" => write!(to, " {}", module.function_label(*self)),
            "global_index" => write!(to, " {}", module.global_label(*self)),
            "type_index" => write!(to, " (type {self})"),
            // Nearly always the only one.
            "mem" | "table_index" | "dst_mem" | "src_mem" if *self == 0 => Ok(()),
            _ => write!(to, " {self}"),
        };
    }
}

macro_rules! write_as {
    ($($ty:ty: $format:literal),*) => {$(
        impl Operand for $ty {
            fn write(&self, _: &str, _: &Module<'_>, to: &mut String) {
                let _ = write!(to, $format, self);
            }
        }
    )*};
}

write_as!(i32: " {}", i64: " {}", u8: " {}", ValType: " {}", RefType: " {}", HeapType: " {:?}", Ordering: " {:?}",
    [u8; 16]: " {:?}", Vec<ValType>: " {:?}", TryTable: " {:?}", ResumeTable: " {:?}");

impl Operand for Ieee32 {
    fn write(&self, _: &str, _: &Module<'_>, to: &mut String) {
        let value = f32::from_bits(self.bits());
        let _ = if value.is_nan() { write!(to, " nan:{:#x}", self.bits()) } else { write!(to, " {value:?}") };
    }
}

impl Operand for Ieee64 {
    fn write(&self, _: &str, _: &Module<'_>, to: &mut String) {
        let value = f64::from_bits(self.bits());
        let _ = if value.is_nan() { write!(to, " nan:{:#x}", self.bits()) } else { write!(to, " {value:?}") };
    }
}

impl Operand for V128 {
    fn write(&self, _: &str, _: &Module<'_>, to: &mut String) {
        let _ = write!(to, " {:#034x}", self.i128());
    }
}

impl Operand for BlockType {
    fn write(&self, _: &str, module: &Module<'_>, to: &mut String) {
        let _ = match self {
            Self::Empty => Ok(()),
            Self::Type(ty) => write!(to, " (result {ty})"),
            Self::FuncType(ty) => write!(to, " {}", module.function_type(*ty)),
        };
    }
}

impl Operand for MemArg {
    fn write(&self, _: &str, _: &Module<'_>, to: &mut String) {
        if self.memory != 0 {
            let _ = write!(to, " {}", self.memory);
        }
        if self.offset != 0 {
            let _ = write!(to, " offset={}", self.offset);
        }
        if self.align != self.max_align {
            let _ = write!(to, " align=2^{}", self.align);
        }
    }
}

impl Operand for BrTable<'_> {
    fn write(&self, _: &str, _: &Module<'_>, to: &mut String) {
        for target in self.targets().take(TARGETS).map_while(Result::ok) {
            let _ = write!(to, " {target}");
        }
        if let Some(more @ 1..) = (self.len() as usize).checked_sub(TARGETS) {
            let _ = write!(to, " [… {more} more …]");
        }
        let _ = write!(to, " {}", self.default());
    }
}
