//! Recording facts and asking for them: journal and index as one.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    action::Action,
    id::{ActionId, NarHash},
};

use crate::{
    DiskError, IndexError, Realisation, RecordReadError, ServedError, Store,
    books::{Books, other},
    disk,
    fact::{Fact, PinError, check_pin},
    index::Index,
    journal::AppendError,
};

/// Ids that are shown for a prefix that many have.
const SHOWN: usize = 8;

/// Why a fact was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A realisation of an action that is not recorded.
    #[error("{action} must be recorded before what became of it")]
    ActionMissing {
        /// The action.
        action: ActionId,
    },
    /// A fact that would not be read back: a limit is exceeded, or there are no outputs.
    #[error("not a fact that could be read back")]
    Refused(#[source] protocol::encode::DecodeError),
    /// A pin that is not one.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// The journal was not written: the fact is not recorded.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Whether the fact is known could not be asked: it is not recorded.
    #[error("not recorded, because the index failed; open the store again")]
    Index(#[from] IndexError),
    /// The fact is recorded, but will be found only after the store was opened again, or after
    /// [`Store::reindex`]; and so are others, perhaps, that were recorded just before without an error.
    #[error("recorded, but the index failed; open the store again")]
    Unindexed(#[source] IndexError),
    /// The process that has the store open did not record it, or did not say that it did.
    #[error(transparent)]
    Served(#[from] ServedError),
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The index failed, now or when it was to be told what was recorded last; all of it is kept,
    /// and the index will be rebuilt when the store is next opened.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The journal is damaged or out of reach at that place.
    #[error(transparent)]
    Journal(#[from] RecordReadError),
    /// The disk refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The process that has the store open did not answer.
    #[error(transparent)]
    Served(#[from] ServedError),
    /// A sweep could take what others need.
    #[error("the store is in use by {processes} other process{}: sweep when {} ended",
        if *processes == 1 { "" } else { "es" },
        if *processes == 1 { "it has" } else { "they have" })]
    InUse {
        /// How many of them, at least.
        processes: usize,
    },
}

/// What a text is the beginning of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Of nothing that is known here.
    Nothing,
    /// Of one action only.
    Action(ActionId),
    /// Of one archive only.
    Nar(NarHash),
    /// Of several; the first of them, in order, as text.
    Ambiguous(Vec<String>),
}

impl Store {
    /// Records a fact: durably, when this returns.
    pub fn record(&self, fact: &Fact) -> Result<(), RecordError> {
        self.record_all(std::slice::from_ref(fact))
    }

    /// Records facts in this order: durably, when this returns, and with one sync.
    ///
    /// # Errors
    ///
    /// [`RecordError`]. If a fact is refused, none is recorded. If the disk fails, or we are
    /// killed, the first few may be.
    pub fn record_all(&self, facts: &[Fact]) -> Result<(), RecordError> {
        match &self.books {
            Books::Here(here) => here.record_all(facts),
            Books::There(client) => client.record_all(facts),
        }
    }

    /// What an action says.
    pub fn action(&self, id: &ActionId) -> Result<Option<Action>, LookupError> {
        let here = match &self.books {
            Books::Here(here) => here,
            Books::There(client) => return client.action(id),
        };
        match here.indexed(|index| index.action(id))? {
            None => Ok(None),
            Some(at) => match here.journal.read(at)? {
                Fact::Action(action) if action.id() == *id => Ok(Some(action)),
                _ => Err(other(at).into()),
            },
        }
    }

    /// What became of an action when it was last executed here.
    pub fn realisation(&self, id: &ActionId) -> Result<Option<Realisation>, LookupError> {
        let here = match &self.books {
            Books::Here(here) => here,
            Books::There(client) => return client.realisation(id),
        };
        match here.indexed(|index| index.realisation(id))? {
            None => Ok(None),
            Some(at) => match here.built(at)? {
                built if built.action == *id => Ok(Some(built)),
                _ => Err(other(at).into()),
            },
        }
    }

    /// The latest realisation of every action, the latest recorded first.
    pub fn realisations(
        &self,
    ) -> Result<impl Iterator<Item = Result<Realisation, LookupError>> + '_, LookupError> {
        type Realisations<'s> = Box<dyn Iterator<Item = Result<Realisation, LookupError>> + Send + 's>;
        let found: Realisations<'_> = match &self.books {
            Books::Here(here) => Box::new(here.latest()?.into_iter().map(|at| Ok(here.built(at)?))),
            Books::There(client) => Box::new(client.realisations()?),
        };
        Ok(found)
    }

    /// The actions that were ever realised here with this archive among their outputs.
    pub fn makers(&self, nar: &NarHash) -> Result<Vec<ActionId>, LookupError> {
        let here = match &self.books {
            Books::Here(here) => here,
            Books::There(client) => return Ok(client.makers(nar)?),
        };
        Ok(here.indexed(|index| index.makers(nar))?)
    }

    /// Keeps archives from being swept, under a name; what had the name before loses it.
    pub fn pin(&self, name: &str, nars: &BTreeSet<NarHash>) -> Result<(), RecordError> {
        check_pin(name, nars.len())?;
        self.record(&Fact::Pinned { name: name.to_owned(), nars: nars.clone() })
    }

    /// Takes a pin away; false if there is none of that name.
    pub fn unpin(&self, name: &str) -> Result<bool, RecordError> {
        check_pin(name, 0)?;
        let here = match &self.books {
            Books::Here(here) => here,
            Books::There(client) => return Ok(client.unpin(name)?),
        };
        if here.indexed(|index| index.pin(name))?.is_none() {
            return Ok(false);
        }
        here.record_all(&[Fact::Unpinned { name: name.to_owned() }])?;
        Ok(true)
    }

    /// All pins.
    pub fn pins(&self) -> Result<BTreeMap<String, BTreeSet<NarHash>>, LookupError> {
        let here = match &self.books {
            Books::Here(here) => here,
            Books::There(client) => return client.pins(),
        };
        let mut pins = BTreeMap::new();
        for (name, at) in here.indexed(Index::pins)? {
            match here.journal.read(at)? {
                Fact::Pinned { name: found, nars } if found == name => pins.insert(name, nars),
                _ => return Err(other(at).into()),
            };
        }
        Ok(pins)
    }

    /// What `text`, such as `act:abcd` or just `abcd`, is the beginning of, among the actions and
    /// archives known here.
    pub fn find_prefix(&self, text: &str) -> Result<Found, LookupError> {
        let here = match &self.books {
            Books::Here(here) => here,
            Books::There(client) => return Ok(client.find_prefix(text)?),
        };
        let (kind, body) = match text.split_once(':') {
            Some((kind, body)) => (Some(kind), body),
            None => (None, text),
        };
        let Some((low, high)) = range(body) else { return Ok(Found::Nothing) };
        let mut actions = Vec::new();
        let mut nars = BTreeSet::new();
        if kind.is_none_or(|kind| kind == ActionId::KIND) {
            actions = here.indexed(|index| index.actions_between(&low, &high, SHOWN))?;
        }
        if kind.is_none_or(|kind| kind == NarHash::KIND) {
            nars.extend(here.indexed(|index| index.nars_between(&low, &high, SHOWN))?);
            nars.extend(self.nars_on_disk(&low, &high)?);
        }
        let nars: Vec<_> = nars.into_iter().take(SHOWN).collect();
        Ok(match (&actions[..], &nars[..]) {
            ([], []) => Found::Nothing,
            ([action], []) => Found::Action(*action),
            ([], [nar]) => Found::Nar(*nar),
            _ => {
                let texts = actions.iter().map(ActionId::to_string);
                Found::Ambiguous(texts.chain(nars.iter().map(NarHash::to_string)).take(SHOWN).collect())
            }
        })
    }

    /// The archives from `low` to `high` that are here.
    fn nars_on_disk(&self, low: &[u8; 32], high: &[u8; 32]) -> Result<Vec<NarHash>, DiskError> {
        let mut found = Vec::new();
        for first in low[0]..=high[0] {
            let dir = self.home.cas.join(format!("{first:02x}"));
            for entry in disk::list(&dir)? {
                let hash = nar_name(first, &entry.file_name());
                found.extend(hash.filter(|hash| (low..=high).contains(&hash.as_bytes())));
            }
        }
        Ok(found)
    }
}

/// The hash that a file in the directory of `first` is named by, if it is named by one.
pub(crate) fn nar_name(first: u8, name: &std::ffi::OsStr) -> Option<NarHash> {
    let rest = name.to_str()?.strip_suffix(".nar")?;
    NarHash::from_hex(&format!("{first:02x}{rest}"))
}

/// The smallest and the largest hash whose text begins with `body`; `None` if none does.
fn range(body: &str) -> Option<([u8; 32], [u8; 32])> {
    let (mut low, mut high) = ([0_u8; 32], [0xff_u8; 32]);
    if body.is_empty() || body.len() > 52 {
        return None;
    }
    for (place, c) in body.bytes().enumerate() {
        let value = match c {
            b'a'..=b'z' => c - b'a',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return None,
        };
        for bit in 0..5 {
            let (at, one) = (place * 5 + bit, value >> (4 - bit) & 1 == 1);
            let mask = 0x80 >> (at % 8);
            match (low.get_mut(at / 8), high.get_mut(at / 8), one) {
                (Some(low), _, true) => *low |= mask,
                (_, Some(high), false) => *high &= !mask,
                // Behind the 256th bit there are only zeros.
                (None, _, true) => return None,
                _ => {}
            }
        }
    }
    Some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_ranges() {
        let id = NarHash::from_bytes(std::array::from_fn(|i| (i * 37) as u8));
        let text = id.to_string();
        for len in 1..=52 {
            let (low, high) = range(&text[4..4 + len]).unwrap();
            for bound in [low, high] {
                assert_eq!(NarHash::from_bytes(bound).to_string()[..4 + len], text[..4 + len], "{len}");
            }
            assert!((low..=high).contains(id.as_bytes()));
        }
        assert_eq!(range(&text[4..]), Some((*id.as_bytes(), *id.as_bytes())));
        assert_eq!(range(""), None);
        assert_eq!(range("A"), None);
        assert_eq!(range(&"b".repeat(53)), None);
    }
}
