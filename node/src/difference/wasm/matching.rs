//! Matching: which part of one module is which of the other.
//!
//! Functions of a module's own are found again, one way after another:
//!
//! 1. those at the beginning and at the end of both that are the same, byte for byte;
//! 2. by name, where as many have it on both sides;
//! 3. by their instructions, whatever the indices in them;
//! 4. by where they are: behind the same function, with the same type.
//!
//! All of it sorts and walks; nothing compares every function with every other.

use std::{
    hash::{DefaultHasher, Hasher},
    mem::discriminant,
};

use wasmparser::{ConstExpr, Export, ExternalKind, FunctionBody, Global, Operator, TypeRef};

use super::{
    Place, Sides,
    module::Module,
    reference::{Reference, References},
};

/// Functions that are looked at behind the last one that was found, in the fourth way.
const AHEAD: usize = 16;

/// What belongs together in two modules.
pub(super) struct Matching {
    pub(super) functions: Pairs,
    pub(super) globals: Pairs,
    /// Types that look the same have the same number. That types with references to other types look
    /// the same says less, but only modules with garbage collection have such.
    types: Sides<Vec<u32>>,
    /// Whether anything has another index on the other side.
    pub(super) renumbered: bool,
}

impl Matching {
    pub(super) fn of(left: &Module<'_>, right: &Module<'_>) -> Self {
        let mut matching = Self {
            functions: Pairs::new(left.function_types.len(), right.function_types.len()),
            globals: Pairs::new(left.global_count() as usize, right.global_count() as usize),
            types: classes(&left.types, &right.types),
            renumbered: false,
        };
        matching.imported(left, right);
        matching.own_globals(left, right);
        matching.at_the_ends(left, right);
        matching.by_name(left, right);
        matching.by_instructions(left, right);
        matching.by_place(left, right);
        let types = matching.types.left.iter().zip(&matching.types.right).any(|(left, right)| left != right);
        matching.renumbered = types || matching.functions.renumbered() || matching.globals.renumbered();
        matching
    }

    fn imported(&mut self, left: &Module<'_>, right: &Module<'_>) {
        let of = |test: fn(&TypeRef) -> bool| keyed(&left.import_keys_of(test), &right.import_keys_of(test));
        let functions = of(|ty| matches!(ty, TypeRef::Func(_) | TypeRef::FuncExact(_)));
        self.functions.pair_all(&functions);
        self.globals.pair_all(&of(|ty| matches!(ty, TypeRef::Global(_))));
    }

    /// Globals have names, or are where they were.
    fn own_globals(&mut self, left: &Module<'_>, right: &Module<'_>) {
        let (free_left, free_right) = self.globals.free(left.imported_globals, right.imported_globals);
        self.globals.by_key(
            left.globals_by_name(free_left),
            right.globals_by_name(free_right),
            Groups::OfOneSize,
        );
        let (from, to) =
            (left.imported_globals..left.global_count(), right.imported_globals..right.global_count());
        for (left, right) in from.zip(to) {
            self.globals.pair(left, right);
        }
    }

    fn at_the_ends(&mut self, left: &Module<'_>, right: &Module<'_>) {
        let same = |matching: &Self, l: u32, r: u32| {
            left.function_name(l) == right.function_name(r)
                && matching.same_signature(left, right, l, r)
                && left.body_bytes(l) == right.body_bytes(r)
        };
        let own = |module: &Module<'_>| module.imported_functions..module.function_types.len() as u32;
        let mut forwards = own(left).zip(own(right));
        let first = forwards.find(|(l, r)| {
            let same = same(self, *l, *r);
            if same {
                self.functions.pair(*l, *r);
            }
            !same
        });
        let Some((first_left, first_right)) = first else { return };
        for (l, r) in own(left).rev().zip(own(right).rev()) {
            if l < first_left || r < first_right || !same(self, l, r) {
                return;
            }
            self.functions.pair(l, r);
        }
    }

    fn by_name(&mut self, left: &Module<'_>, right: &Module<'_>) {
        let (free_left, free_right) = self.functions.free(left.imported_functions, right.imported_functions);
        self.functions.by_key(left.by_name(free_left), right.by_name(free_right), Groups::OfOneSize);
    }

    fn by_instructions(&mut self, left: &Module<'_>, right: &Module<'_>) {
        let (free_left, free_right) = self.functions.free(left.imported_functions, right.imported_functions);
        if free_left.is_empty() || free_right.is_empty() {
            return;
        }
        let left: Vec<_> =
            free_left.into_iter().map(|at| (self.fingerprint(left, at, Of::Left), at)).collect();
        let right: Vec<_> =
            free_right.into_iter().map(|at| (self.fingerprint(right, at, Of::Right), at)).collect();
        self.functions.by_key(left, right, Groups::OfAnySize);
    }

    fn by_place(&mut self, left: &Module<'_>, right: &Module<'_>) {
        let mut next = right.imported_functions as usize;
        for l in left.imported_functions..left.function_types.len() as u32 {
            if let Some(found) = self.functions.right_of(l) {
                next = found as usize + 1;
                continue;
            }
            let ahead = (next..right.function_types.len()).take(AHEAD).map(|at| at as u32);
            let mut free = ahead.take_while(|r| self.functions.left_of(*r).is_none());
            if let Some(r) = free.find(|r| self.same_signature(left, right, l, *r)) {
                self.functions.pair(l, r);
                next = r as usize + 1;
            }
        }
    }

    /// What a function does, as far as it can be said before it is known which function is which.
    fn fingerprint(&self, module: &Module<'_>, at: u32, of: Of) -> u64 {
        let mut hash = DefaultHasher::new();
        let ty = module.function_types.get(at as usize).copied().unwrap_or_default();
        hash.write_u32(self.class(ty, of));
        let Some(body) = module.body(at) else { return hash.finish() };
        let range = body.range();
        // Bytes that say the same on both sides, up to here.
        let mut done = range.start;
        if let Ok(mut references) = References::of(&body) {
            while let Ok(Some((at, reference, end))) = references.next() {
                hash.write(module.slice(done..at + 1));
                hash.write_u32(self.meant(reference, of));
                done = end;
            }
        }
        hash.write(module.slice(done..range.end));
        hash.finish()
    }

    /// What a reference is about, the same for both sides.
    fn meant(&self, reference: Reference, of: Of) -> u32 {
        /// Something that was not found on the other side, or not yet.
        const UNKNOWN: u32 = u32::MAX;
        match reference {
            Reference::Function(at) => self.functions.left_name(at, of).unwrap_or(UNKNOWN),
            Reference::Global(at) => self.globals.left_name(at, of).unwrap_or(UNKNOWN),
            Reference::Type { ty, .. } => self.class(ty, of),
        }
    }

    fn class(&self, ty: u32, of: Of) -> u32 {
        let classes = match of {
            Of::Left => &self.types.left,
            Of::Right => &self.types.right,
        };
        classes.get(ty as usize).copied().unwrap_or(u32::MAX)
    }

    /// Whether two functions have types that look the same.
    pub(super) fn same_signature(&self, left: &Module<'_>, right: &Module<'_>, l: u32, r: u32) -> bool {
        match (left.function_types.get(l as usize), right.function_types.get(r as usize)) {
            (Some(l), Some(r)) => self.same_type(*l, *r),
            _ => false,
        }
    }

    fn same_type(&self, left: u32, right: u32) -> bool {
        match (self.types.left.get(left as usize), self.types.right.get(right as usize)) {
            (Some(left), Some(right)) => left == right,
            _ => left == right,
        }
    }

    pub(super) fn same_type_ref(&self, left: &TypeRef, right: &TypeRef) -> bool {
        match (left, right) {
            (TypeRef::Func(l), TypeRef::Func(r)) | (TypeRef::FuncExact(l), TypeRef::FuncExact(r)) => {
                self.same_type(*l, *r)
            }
            (TypeRef::Tag(l), TypeRef::Tag(r)) => self.same_type(l.func_type_idx, r.func_type_idx),
            _ => left == right,
        }
    }

    pub(super) fn same_global(&self, left: &Global<'_>, right: &Global<'_>) -> bool {
        left.ty == right.ty && self.same_expression(&left.init_expr, &right.init_expr)
    }

    pub(super) fn same_export(&self, left: &Export<'_>, right: &Export<'_>) -> bool {
        left.kind == right.kind
            && match left.kind {
                ExternalKind::Func | ExternalKind::FuncExact => self.functions.same(left.index, right.index),
                ExternalKind::Global => self.globals.same(left.index, right.index),
                ExternalKind::Table | ExternalKind::Memory | ExternalKind::Tag => left.index == right.index,
            }
    }

    pub(super) fn same_expression(&self, left: &ConstExpr<'_>, right: &ConstExpr<'_>) -> bool {
        let mut left = left.get_operators_reader().into_iter().map_while(Result::ok);
        let mut right = right.get_operators_reader().into_iter().map_while(Result::ok);
        loop {
            match (left.next(), right.next()) {
                (Some(l), Some(r)) if self.same_operator(&l, &r) => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    /// Whether two instructions do the same with the same.
    pub(super) fn same_operator(&self, left: &Operator<'_>, right: &Operator<'_>) -> bool {
        match (Reference::of(left), Reference::of(right)) {
            (None, None) => left == right,
            (Some(l), Some(r)) => discriminant(left) == discriminant(right) && self.same_reference(l, r),
            _ => false,
        }
    }

    fn same_reference(&self, left: Reference, right: Reference) -> bool {
        match (left, right) {
            (Reference::Function(l), Reference::Function(r)) => self.functions.same(l, r),
            (Reference::Global(l), Reference::Global(r)) => self.globals.same(l, r),
            (Reference::Type { ty: l, table: t }, Reference::Type { ty: r, table: u }) => {
                t == u && self.same_type(l, r)
            }
            _ => false,
        }
    }

    /// Whether two functions are the same, byte for byte, but for indices of what is the same.
    pub(super) fn same_body(
        &self,
        left: (&Module<'_>, &FunctionBody<'_>),
        right: (&Module<'_>, &FunctionBody<'_>),
    ) -> wasmparser::Result<bool> {
        let (mut l, mut r) = (References::of(left.1)?, References::of(right.1)?);
        let (mut done_left, mut done_right) = (left.1.range().start, right.1.range().start);
        loop {
            let (l, r) = match (l.next()?, r.next()?) {
                (None, None) => break,
                (Some(l), Some(r)) => (l, r),
                _ => return Ok(false),
            };
            let same = left.0.slice(done_left..l.0 + 1) == right.0.slice(done_right..r.0 + 1);
            if !same || !self.same_reference(l.1, r.1) {
                return Ok(false);
            }
            (done_left, done_right) = (l.2, r.2);
        }
        let rest_left = left.0.slice(done_left..left.1.range().end);
        Ok(rest_left == right.0.slice(done_right..right.1.range().end))
    }
}

/// Whose index it is.
#[derive(Clone, Copy)]
enum Of {
    Left,
    Right,
}

/// Which groups of equal keys are paired.
enum Groups {
    /// Those with as many on both sides: else it could be any of them that is new.
    OfOneSize,
    /// All, as far as there are as many.
    OfAnySize,
}

/// Which index of one side is which of the other.
pub(super) struct Pairs {
    to_right: Vec<u32>,
    to_left: Vec<u32>,
}

/// No index.
const NONE: u32 = u32::MAX;

impl Pairs {
    fn new(left: usize, right: usize) -> Self {
        Self { to_right: vec![NONE; left], to_left: vec![NONE; right] }
    }

    /// Pairs two that are free.
    fn pair(&mut self, left: u32, right: u32) {
        let free = (self.to_right.get_mut(left as usize), self.to_left.get_mut(right as usize));
        if let (Some(l @ &mut NONE), Some(r @ &mut NONE)) = free {
            (*l, *r) = (right, left);
        }
    }

    fn pair_all(&mut self, places: &[Place]) {
        for (left, right) in places.iter().filter_map(|place| place.left.zip(place.right)) {
            self.pair(left, right);
        }
    }

    /// Pairs those with equal keys, the first with the first.
    fn by_key<K: Ord>(&mut self, mut left: Vec<(K, u32)>, mut right: Vec<(K, u32)>, groups: Groups) {
        left.sort_unstable();
        right.sort_unstable();
        let mut right = right.chunk_by(|a, b| a.0 == b.0).peekable();
        for group in left.chunk_by(|a, b| a.0 == b.0) {
            while right.next_if(|other| other[0].0 < group[0].0).is_some() {}
            let Some(other) = right.next_if(|other| other[0].0 == group[0].0) else { continue };
            if matches!(groups, Groups::OfAnySize) || group.len() == other.len() {
                group.iter().zip(other).for_each(|((_, left), (_, right))| self.pair(*left, *right));
            }
        }
    }

    fn right_of(&self, left: u32) -> Option<u32> {
        self.to_right.get(left as usize).copied().filter(|right| *right != NONE)
    }

    fn left_of(&self, right: u32) -> Option<u32> {
        self.to_left.get(right as usize).copied().filter(|left| *left != NONE)
    }

    /// What stands for both of a pair: the index on the left.
    fn left_name(&self, at: u32, of: Of) -> Option<u32> {
        match of {
            Of::Left => self.right_of(at).map(|_| at),
            Of::Right => self.left_of(at),
        }
    }

    /// Those that are not paired, from these indices on.
    fn free(&self, left: u32, right: u32) -> (Vec<u32>, Vec<u32>) {
        let left = (left..self.to_right.len() as u32).filter(|at| self.right_of(*at).is_none());
        let right = (right..self.to_left.len() as u32).filter(|at| self.left_of(*at).is_none());
        (left.collect(), right.collect())
    }

    /// Whether two indices are about the same.
    pub(super) fn same(&self, left: u32, right: u32) -> bool {
        match (self.right_of(left), self.left_of(right)) {
            (Some(found), _) => found == right,
            // Damaged modules speak of what is not there.
            (None, None) => left == right && left as usize >= self.to_right.len().min(self.to_left.len()),
            (None, Some(_)) => false,
        }
    }

    fn renumbered(&self) -> bool {
        self.to_right.len() != self.to_left.len()
            || self.to_right.iter().enumerate().any(|(l, r)| *r != l as u32)
    }

    /// All from `left` and `right` on: those of the left side in their order, with what was found for
    /// them, then those that only the right side has.
    pub(super) fn places(&self, left: u32, right: u32) -> Vec<Place> {
        let left =
            (left..self.to_right.len() as u32).map(|at| Sides { left: Some(at), right: self.right_of(at) });
        let right = (right..self.to_left.len() as u32).filter(|at| self.left_of(*at).is_none());
        left.chain(right.map(|at| Sides { left: None, right: Some(at) })).collect()
    }
}

/// Places of equal keys, in the order of [`Pairs::places`].
pub(super) fn keyed<K: Ord + Clone>(left: &[K], right: &[K]) -> Vec<Place> {
    let numbered = |keys: &[K]| keys.iter().cloned().zip(0..).collect();
    let mut pairs = Pairs::new(left.len(), right.len());
    pairs.by_key(numbered(left), numbered(right), Groups::OfAnySize);
    pairs.places(0, 0)
}

/// Numbers of values, the same for the same.
fn classes<K: Ord>(left: &[K], right: &[K]) -> Sides<Vec<u32>> {
    let mut all: Vec<(&K, usize)> = left.iter().chain(right).zip(0..).collect();
    all.sort_unstable();
    let mut classes = vec![0; all.len()];
    for (class, group) in all.chunk_by(|a, b| a.0 == b.0).enumerate() {
        group.iter().for_each(|(_, at)| classes[*at] = class as u32);
    }
    let right = classes.split_off(left.len());
    Sides { left: classes, right }
}
