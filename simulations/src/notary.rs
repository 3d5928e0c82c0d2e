//! Signatures, checked once for all nodes of a world.
//!
//! A signature is good or it is not, whoever looks: so each distinct statement is verified once, by
//! the very function that a node uses, and the nodes share what came of it, and the statement. That
//! is all that is saved; what a node does with a statement that is forged, it does.

use std::{collections::BTreeMap, sync::Arc};

use protocol::{
    evidence::{Equivocation, Evidence, Revocation, UnverifiedEvidence},
    id::StatementId,
    statement::{Signed, Unverified},
    wish::UnverifiedWish,
};
use trust::ledger::Record;

/// A statement whose signature is good, with what all nodes want to know of it.
#[derive(Debug)]
pub(crate) struct Sworn {
    pub(crate) signed: Signed,
    pub(crate) id: StatementId,
    pub(crate) record: Option<Record>,
}

/// Something whose signatures are good.
#[derive(Debug, Clone)]
pub(crate) enum Good {
    Statement(Arc<Sworn>),
    Proof(Arc<Evidence>),
}

/// All statements of a world, by their bytes.
#[derive(Debug, Default)]
pub(crate) struct Notary {
    statements: BTreeMap<Box<[u8]>, Option<Arc<Sworn>>>,
    revocations: BTreeMap<Revocation, bool>,
    wishes: BTreeMap<Box<[u8]>, bool>,
    /// Signatures that were checked.
    pub(crate) checks: u64,
}

impl Sworn {
    fn new(signed: Signed) -> Arc<Self> {
        let (id, record) = (signed.id(), Record::of(&signed));
        Arc::new(Self { signed, id, record })
    }

    /// As it is sent to others.
    pub(crate) fn to_item(&self) -> UnverifiedEvidence {
        Evidence::Statement(self.signed.clone()).into()
    }
}

impl Notary {
    /// A statement that its attester has just signed.
    pub(crate) fn swear(&mut self, signed: Signed) -> Arc<Sworn> {
        let sworn = Sworn::new(signed);
        self.statements.insert(sworn.signed.bytes().into(), Some(sworn.clone()));
        sworn
    }

    /// Checks it; `None` if it is forged, or proves nothing.
    pub(crate) fn verify(&mut self, item: &UnverifiedEvidence) -> Option<Good> {
        match item {
            UnverifiedEvidence::Statement(statement) => Some(Good::Statement(self.statement(statement)?)),
            UnverifiedEvidence::Revocation(revocation) => {
                let checks = &mut self.checks;
                let good = *self.revocations.entry(*revocation).or_insert_with(|| {
                    *checks += 1;
                    item.clone().verify().is_ok()
                });
                good.then(|| Good::Proof(Arc::new(Evidence::Revocation(*revocation))))
            }
            UnverifiedEvidence::Equivocation(both) => {
                let (one, other) = (self.statement(&both[0])?, self.statement(&both[1])?);
                let proof = Equivocation::new(one.signed.clone(), other.signed.clone()).ok()?;
                Some(Good::Proof(Arc::new(Evidence::Equivocation(proof))))
            }
        }
    }

    fn statement(&mut self, statement: &Unverified) -> Option<Arc<Sworn>> {
        if let Some(known) = self.statements.get(statement.bytes()) {
            return known.clone();
        }
        self.checks += 1;
        let sworn = statement.clone().verify().ok().map(Sworn::new);
        self.statements.insert(statement.bytes().into(), sworn.clone());
        sworn
    }

    /// Whether a wish is of whom it says to be.
    pub(crate) fn wish(&mut self, wish: &UnverifiedWish) -> bool {
        let check = || wish.clone().verify().is_ok();
        *self.wishes.entry(wish.to_bytes().into()).or_insert_with(check)
    }

    /// Takes a statement as good that is not: what a node does that looks at no signature.
    pub(crate) fn believe(&mut self, item: &UnverifiedEvidence) -> Option<Good> {
        match (self.verify(item), item) {
            (None, UnverifiedEvidence::Statement(forged)) => {
                Some(Good::Statement(Sworn::new(forged.clone().assume_verified())))
            }
            (known, _) => known,
        }
    }
}
