//! All that a store keeps of one build, to be found again after a kill.

use std::{collections::BTreeSet, error::Error, io::Write as _};

use protocol::{action::Action, feed::Head, id::NarHash, statement::Body};
use store::{Fact, Realisation, Store};

use super::{action, archive, attestation, attester, key, realisation};

/// Whose feed all things are said in.
pub(crate) const ATTESTER: u8 = 7;

/// An action, the archive that it gave, what is said of it, and for one in eight a pin.
pub(crate) struct Thing {
    n: u32,
    action: Action,
    nar: Vec<u8>,
}

impl Thing {
    /// The thing number `n`, with an archive of 100 bytes to about `size`.
    pub(crate) fn new(n: u32, size: u32) -> Self {
        let len = n.wrapping_mul(2654435761) % size;
        Self { n, action: action(n), nar: archive(&n.to_le_bytes().repeat(len as usize / 4)) }
    }

    fn hash(&self) -> NarHash {
        NarHash::of(&self.nar)
    }

    fn realisation(&self) -> Realisation {
        realisation(&self.action, self.hash(), 1)
    }

    fn said(&self) -> Body {
        attestation(self.realisation())
    }

    /// The name of its pin.
    pub(crate) fn pin(&self) -> Option<String> {
        self.n.is_multiple_of(8).then(|| format!("pin {}", self.n))
    }

    /// Has `store` keep it, in one of two ways.
    pub(crate) fn keep(&self, store: &Store) -> Result<(), Box<dyn Error + Send + Sync>> {
        if self.n.is_multiple_of(2) {
            store.admit(&self.nar[..], Some(self.hash()), u64::MAX)?;
        } else {
            let mut file = store.temp()?;
            file.write_all(&self.nar)?;
            store.admit_file(file, None)?;
        }
        store.record_all(&[Fact::Action(self.action.clone()), Fact::Built(self.realisation())])?;
        store.say(&key(ATTESTER), 0, [self.said()])?;
        if let Some(pin) = self.pin() {
            store.pin(&pin, &BTreeSet::from([self.hash()]))?;
        }
        Ok(())
    }

    #[track_caller]
    pub(crate) fn is_in(&self, store: &Store) {
        let id = self.action.id();
        assert_eq!(store.open_nar(&self.hash()).unwrap().bytes(), self.nar);
        assert_eq!(store.action(&id).unwrap().as_ref(), Some(&self.action));
        assert_eq!(store.realisation(&id).unwrap(), Some(self.realisation()));
        let claims = store.claims(&id).unwrap();
        assert_eq!(claims.iter().map(|c| &c.statement().body).collect::<Vec<_>>(), [&self.said()]);
    }
}

/// One feed without a gap or a fork, however often its attester was killed; its length.
#[track_caller]
pub(crate) fn is_whole(store: &Store, who: u8) -> u64 {
    let mut head = Head::empty(attester(who));
    for signed in store.statements(&attester(who), 0) {
        head = head.follow(&signed.unwrap()).unwrap();
    }
    assert_eq!(head, store.head(&attester(who)).unwrap());
    assert_eq!(store.bearing(&attester(who)).unwrap(), []);
    head.len()
}
