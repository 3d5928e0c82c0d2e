//! Facts: what the journal says, and all that it says (SPEC §9.3).

use std::collections::BTreeSet;

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};
use protocol::{
    action::Action,
    encode::refuse,
    evidence::{Evidence, UnverifiedEvidence},
    id::{ActionId, DerivationId, NarHash},
    limits,
    name::Name,
    output::{self, Outputs},
    witness::TranscriptHash,
};

/// Longest encoding of a fact, in bytes: an action and its frame.
pub const FACT_BYTES: usize = limits::DERIVATION_BYTES + 16;

/// Longest name of a pin, in bytes: a path fits.
pub const PIN_NAME_BYTES: usize = 1024;

/// Archives of one pin. 34 bytes each, so that the fact stays below [`FACT_BYTES`].
pub const PIN_NARS: usize = 1 << 16;

/// One thing that happened here and is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// An action was executed here and ended well. Its action is recorded before it.
    Built(Realisation),
    /// An action exists; without it, an [`ActionId`] says nothing.
    Action(Action),
    /// These archives are kept from now on, instead of those that had this name.
    Pinned {
        /// Checked by [`check_pin`].
        name: String,
        /// At most [`PIN_NARS`].
        nars: BTreeSet<NarHash>,
    },
    /// Something signed that is kept for good: a statement, or a proof against a key.
    Evidence(Evidence),
    /// The archives that had this name are no longer kept for its sake.
    Unpinned {
        /// Checked by [`check_pin`].
        name: String,
    },
}

/// What an action became when it was executed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Realisation {
    /// What was executed.
    pub action: ActionId,
    /// The derivation for whose sake it was.
    pub derivation: Option<DerivationId>,
    /// That derivation's name: a label for people.
    pub name: Name,
    /// What came out, at least one, at most [`limits::OUTPUTS`].
    pub outputs: Outputs,
    /// When it ended, in seconds since 1970 by this machine's clock.
    pub finished: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
    /// What the guest did, hashed: what witnesses are made of. `None` if it was not recorded.
    pub transcript: Option<TranscriptHash>,
}

/// Why a pin was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// No name.
    #[error("a pin needs a name")]
    Empty,
    /// Longer than [`PIN_NAME_BYTES`].
    #[error("a pin's name of {0} bytes; at most {max} are allowed", max = PIN_NAME_BYTES)]
    Long(usize),
    /// A control character, which would spoil a terminal.
    #[error("a control character in the pin's name {0:?}")]
    Control(String),
    /// More than [`PIN_NARS`].
    #[error("a pin of {0} archives; at most {max} are allowed", max = PIN_NARS)]
    Many(usize),
}

/// Checks name and size of a pin.
pub fn check_pin(name: &str, nars: usize) -> Result<(), PinError> {
    match name {
        "" => Err(PinError::Empty),
        long if long.len() > PIN_NAME_BYTES => Err(PinError::Long(long.len())),
        _ if name.chars().any(char::is_control) => Err(PinError::Control(name.to_owned())),
        _ if nars > PIN_NARS => Err(PinError::Many(nars)),
        _ => Ok(()),
    }
}

impl Fact {
    /// Its canonical encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        protocol::encode::to_bytes(self)
    }

    /// Reads a canonical encoding of at most [`FACT_BYTES`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, protocol::encode::DecodeError> {
        protocol::encode::from_bytes(bytes, FACT_BYTES)
    }
}

const BUILT: u8 = 0;
const ACTION: u8 = 1;
const PINNED: u8 = 2;
const UNPINNED: u8 = 3;
// 4 is the head of a segment.
const EVIDENCE: u8 = 5;

impl Encode<()> for Fact {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Built(built) => {
                e.array(if built.transcript.is_some() { 8 } else { 7 })?.u8(BUILT)?;
                built.encode(e, c)
            }
            Self::Action(action) => e.array(2)?.u8(ACTION)?.encode(action)?.ok(),
            Self::Pinned { name, nars } => {
                e.array(3)?.u8(PINNED)?.str(name)?.array(nars.len() as u64)?;
                nars.iter().try_for_each(|nar| e.encode(nar)?.ok())
            }
            Self::Evidence(evidence) => e.array(2)?.u8(EVIDENCE)?.encode(evidence)?.ok(),
            Self::Unpinned { name } => e.array(2)?.u8(UNPINNED)?.str(name)?.ok(),
        }
    }
}

impl<'b> Decode<'b, ()> for Fact {
    fn decode(d: &mut Decoder<'b>, c: &mut ()) -> Result<Self, Malformed> {
        let at = d.position();
        let len = d.array()?;
        match (d.u8()?, len) {
            (BUILT, Some(7)) => Ok(Self::Built(Realisation::decode(d, c)?)),
            (BUILT, Some(8)) => {
                let built = Realisation::decode(d, c)?;
                Ok(Self::Built(Realisation { transcript: Some(d.decode()?), ..built }))
            }
            (EVIDENCE, Some(2)) => {
                let evidence: UnverifiedEvidence = d.decode()?;
                evidence.assume_verified().map(Self::Evidence).map_err(|e| refuse(at, e))
            }
            (ACTION, Some(2)) => Ok(Self::Action(d.decode()?)),
            (PINNED, Some(3)) => {
                let name = d.str()?.to_owned();
                let count = length(d, PIN_NARS)?;
                check_pin(&name, count).map_err(|e| refuse(at, e))?;
                let nars = (0..count).map(|_| d.decode()).collect::<Result<_, _>>()?;
                Ok(Self::Pinned { name, nars })
            }
            (UNPINNED, Some(2)) => {
                let name = d.str()?.to_owned();
                check_pin(&name, 0).map_err(|e| refuse(at, e))?;
                Ok(Self::Unpinned { name })
            }
            (kind, _) => Err(refuse(at, format!("no fact of kind {kind} has this length"))),
        }
    }
}

impl Realisation {
    /// Behind the kind.
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        e.encode(self.action)?.encode(self.derivation)?.encode(&self.name)?;
        output::encode(&self.outputs, e)?;
        e.u64(self.finished)?.u64(self.millis)?;
        self.transcript.iter().try_for_each(|transcript| e.encode(transcript)?.ok())
    }

    fn decode(d: &mut Decoder<'_>, _: &mut ()) -> Result<Self, Malformed> {
        let (action, derivation, name) = (d.decode()?, d.decode()?, d.decode()?);
        let outputs = output::decode(d)?;
        Ok(Self { action, derivation, name, outputs, finished: d.u64()?, millis: d.u64()?, transcript: None })
    }
}

/// Reads the head of an array of at most `limit` elements.
fn length(d: &mut Decoder<'_>, limit: usize) -> Result<usize, Malformed> {
    let at = d.position();
    match d.array()?.map(usize::try_from) {
        Some(Ok(len)) if len <= limit => Ok(len),
        _ => Err(refuse(at, format!("not an array of at most {limit} elements"))),
    }
}

/// Facts of every kind.
#[cfg(test)]
pub(crate) fn samples() -> Vec<Fact> {
    use protocol::{evidence::Revocation, key::SigningKey, output::Output};
    use std::collections::BTreeMap;

    let nar = NarHash::from_bytes([7; 32]);
    let sri = format!("sha256-{}=", "A".repeat(43)).parse().unwrap();
    let action = Action::Fetch(protocol::action::FetchAction { sri, executable: false });
    let realisation = Realisation {
        action: action.id(),
        derivation: Some(DerivationId::from_bytes([9; 32])),
        name: Name::new("hello").unwrap(),
        outputs: BTreeMap::from([(Name::out(), Output { nar, size: 112 })]),
        finished: 1_800_000_000,
        millis: 5,
        transcript: None,
    };
    let key = SigningKey::from_bytes(&[1; 32]);
    let revocation = Evidence::Revocation(Revocation::sign(&key, 7));
    vec![
        Fact::Action(action),
        Fact::Built(Realisation { derivation: None, ..realisation.clone() }),
        Fact::Built(Realisation {
            transcript: Some(TranscriptHash::from_bytes([3; 32])),
            ..realisation.clone()
        }),
        Fact::Built(realisation),
        Fact::Evidence(revocation),
        Fact::Pinned { name: "a".into(), nars: BTreeSet::from([nar]) },
        Fact::Pinned { name: "none".into(), nars: BTreeSet::new() },
        Fact::Unpinned { name: "a".into() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        for fact in samples() {
            assert_eq!(Fact::from_bytes(&fact.to_bytes()).unwrap(), fact);
        }
    }

    #[test]
    fn no_bytes_panic_and_accepted_is_canonical() {
        for fact in samples() {
            let bytes = fact.to_bytes();
            for at in 0..bytes.len() {
                assert!(Fact::from_bytes(&bytes[..at]).is_err(), "cut at {at}");
                for bit in 0..8 {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= 1 << bit;
                    if let Ok(fact) = Fact::from_bytes(&bytes) {
                        assert_eq!(fact.to_bytes(), bytes);
                    }
                }
            }
        }
    }

    #[test]
    fn pins_are_checked() {
        let refused =
            |name: &str| Fact::from_bytes(&Fact::Unpinned { name: name.into() }.to_bytes()).is_err();
        assert!(refused("") && refused("a\nb") && refused(&"x".repeat(1025)));
        assert!(!refused("/home/me/result ü"));
        assert_eq!(check_pin("x", PIN_NARS + 1), Err(PinError::Many(PIN_NARS + 1)));
    }

    #[test]
    fn limits_fit() {
        let nars = (0..PIN_NARS as u64).map(|n| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            NarHash::from_bytes(bytes)
        });
        let fact = Fact::Pinned { name: "x".repeat(PIN_NAME_BYTES), nars: nars.collect() };
        assert!(fact.to_bytes().len() <= FACT_BYTES);
    }
}
