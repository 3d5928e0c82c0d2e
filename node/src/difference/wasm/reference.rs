//! References: instructions that speak of functions, globals and types by index.
//!
//! They are all that has to be understood of a function to say whether it does the same as another:
//! the bytes between them must be the same, and they must be about the same. Finding them is several
//! times as quick as decoding every instruction.

use wasmparser::{BlockType, FunctionBody, Operator, OperatorsReader, VisitOperator, VisitSimdOperator};

/// What an instruction refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reference {
    Function(u32),
    Global(u32),
    /// A type, of a block or of what is called through a table.
    Type {
        ty: u32,
        table: u32,
    },
}

impl Reference {
    /// What `op` refers to, if it does.
    pub(super) fn of(op: &Operator<'_>) -> Option<Self> {
        match *op {
            Operator::Call { function_index }
            | Operator::ReturnCall { function_index }
            | Operator::RefFunc { function_index } => Some(Self::Function(function_index)),
            Operator::GlobalGet { global_index } | Operator::GlobalSet { global_index } => {
                Some(Self::Global(global_index))
            }
            Operator::CallIndirect { type_index: ty, table_index: table }
            | Operator::ReturnCallIndirect { type_index: ty, table_index: table } => {
                Some(Self::Type { ty, table })
            }
            Operator::Block { blockty } | Operator::Loop { blockty } | Operator::If { blockty } => {
                Self::of_block(blockty)
            }
            _ => None,
        }
    }

    fn of_block(ty: BlockType) -> Option<Self> {
        match ty {
            BlockType::FuncType(ty) => Some(Self::Type { ty, table: 0 }),
            BlockType::Empty | BlockType::Type(_) => None,
        }
    }
}

/// A function's references, in order.
pub(super) struct References<'a> {
    operators: OperatorsReader<'a>,
}

impl<'a> References<'a> {
    pub(super) fn of(body: &FunctionBody<'a>) -> wasmparser::Result<Self> {
        Ok(Self { operators: body.get_operators_reader()? })
    }

    /// The next, with the offsets in the module where its instruction begins, which is of one byte
    /// before the index, and where it ends.
    pub(super) fn next(&mut self) -> wasmparser::Result<Option<(usize, Reference, usize)>> {
        while !self.operators.eof() {
            let at = self.operators.original_position();
            if let Some(found) = self.operators.visit_operator(&mut Finder)? {
                return Ok(Some((at, found, self.operators.original_position())));
            }
        }
        Ok(None)
    }
}

/// Sees every instruction, and knows what it refers to.
struct Finder;

macro_rules! find {
    ($(@$proposal:ident $op:ident $({ $($arg:ident: $ty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
        $(fn $visit(&mut self $($(, $arg: $ty)*)?) -> Self::Output {
            find!($op $($($arg)*)?)
        })*
    };
    (Call $function:ident) => { Some(Reference::Function($function)) };
    (ReturnCall $function:ident) => { Some(Reference::Function($function)) };
    (RefFunc $function:ident) => { Some(Reference::Function($function)) };
    (GlobalGet $global:ident) => { Some(Reference::Global($global)) };
    (GlobalSet $global:ident) => { Some(Reference::Global($global)) };
    (CallIndirect $ty:ident $table:ident) => { Some(Reference::Type { ty: $ty, table: $table }) };
    (ReturnCallIndirect $ty:ident $table:ident) => { Some(Reference::Type { ty: $ty, table: $table }) };
    (Block $ty:ident) => { Reference::of_block($ty) };
    (Loop $ty:ident) => { Reference::of_block($ty) };
    (If $ty:ident) => { Reference::of_block($ty) };
    ($op:ident $($arg:ident)*) => {{
        $(let _ = $arg;)*
        None
    }};
}

impl<'a> VisitOperator<'a> for Finder {
    type Output = Option<Reference>;

    fn simd_visitor(&mut self) -> Option<&mut dyn VisitSimdOperator<'a, Output = Self::Output>> {
        Some(self)
    }

    wasmparser::for_each_visit_operator!(find);
}

impl VisitSimdOperator<'_> for Finder {
    wasmparser::for_each_visit_simd_operator!(find);
}
