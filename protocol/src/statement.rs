//! Statements (SPEC §10): what an attester says, signed.
//!
//! A signed attestation means: "I executed this action, on this platform, and got these outputs."
//! It does not mean that the outputs are good, useful or harmless.
//!
//! ```text
//! Statement ── sign ──▶ Signed ── bytes ──▶ Unverified ── verify ──▶ Signed
//! ```
//!
//! Bytes from outside become an [`Unverified`], which is well formed and no more; only verification
//! (or one's own key) makes a [`Signed`] of it.

use minicbor::{
    Decoder, Encode, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};

use crate::{
    encode::{self, DecodeError, array, elements, refuse},
    id::{ActionId, StatementId},
    key::{AttesterKey, Context, Signature, SignatureError, SigningKey, Verifier},
    limits,
    name::Name,
    output::{self, Outputs},
    witness::Witness,
};

const ID: &str = "assize 2026-11 statement";

/// The version of the encoding.
const VERSION: u8 = 1;

/// Bytes of the signature, which come before those of the statement.
const SIGNATURE_BYTES: usize = 64;

/// One entry of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Who says it.
    pub attester: AttesterKey,
    /// Its place in the feed, counted from 0.
    pub seq: u64,
    /// The statement before it; zeros at place 0.
    pub prev: StatementId,
    /// When its attester says that it was said, in seconds since 1970, at most
    /// [`limits::LATEST_TIME`]. Information only: nothing is decided by it.
    pub time: u64,
    /// What is said.
    pub body: Body,
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// I executed an action and got outputs.
    Built(Attestation),
    /// I executed an action and it failed.
    Failed(Failure),
    /// What I said from one place of my feed to another, both included, is withdrawn.
    Retract {
        /// The first place.
        first: u64,
        /// The last place, before this statement's own.
        last: u64,
    },
    /// I go on under another key. This feed ends here.
    Succeed {
        /// The other key.
        successor: AttesterKey,
        /// The successor's signature of [`succession`], without which anybody could name anybody.
        consent: Signature,
    },
}

/// "I executed this action and got these outputs."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// The input hash.
    pub action: ActionId,
    /// All outputs of the action, at least one, at most [`limits::OUTPUTS`].
    pub outputs: Outputs,
    /// Proof of execution; `None` if there is none, which policies may hold against it.
    pub witness: Option<Witness>,
    /// Where it was executed, in the attester's words.
    pub platform: Platform,
}

/// "I executed this action and it failed." Never makes an output accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The input hash.
    pub action: ActionId,
    /// The step that failed, counted from 1; 0 if it is not the fault of one.
    pub step: u32,
    /// How.
    pub ending: Ending,
    /// Where it was executed, in the attester's words.
    pub platform: Platform,
}

/// How an execution failed. Limits and time-outs are not among them: they say nothing of the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The step ended with this code, which is not 0.
    Exit(u32),
    /// The step raised this signal.
    Signal(u8),
    /// The step trapped.
    Trap,
    /// Executions of it on one machine differ: a bug of the engine.
    Unstable,
}

/// Where an action was executed, in the attester's words: nobody can check it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Platform {
    /// The wasm engine and its version, as in `wasmtime-48.0.8`.
    pub engine: Name,
    /// The processor's architecture, as in `x86_64`.
    pub arch: Name,
    /// The operating system, as in `linux`.
    pub os: Name,
}

/// What a successor signs to consent: the old key, then the new one.
pub fn succession(old: &AttesterKey, new: &AttesterKey) -> [u8; 64] {
    let mut bytes = [0; 64];
    bytes[..32].copy_from_slice(old.as_bytes());
    bytes[32..].copy_from_slice(new.as_bytes());
    bytes
}

impl Statement {
    /// Its canonical encoding, without a signature.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode::to_bytes(self)
    }

    /// Reads a canonical encoding of at most [`limits::STATEMENT_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; a statement that breaks a rule of SPEC §10.2 is malformed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        encode::from_bytes(bytes, limits::STATEMENT_BYTES)
    }

    /// Signs it.
    ///
    /// # Errors
    ///
    /// What is not a valid statement is not signed: another attester than the key's, or what
    /// [`Statement::from_bytes`] refuses.
    pub fn sign(self, key: &SigningKey) -> Result<Signed, SignError> {
        if self.attester != AttesterKey::of(key) {
            return Err(SignError::Attester { says: self.attester, key: AttesterKey::of(key) });
        }
        let bytes = self.to_bytes();
        Self::from_bytes(&bytes).map_err(SignError::Invalid)?;
        let signature = Signature::sign(key, Context::Statement, &bytes);
        Ok(Signed { statement: self, bytes: [signature.as_bytes(), bytes.as_slice()].concat() })
    }

    fn check(&self) -> Result<(), String> {
        if (self.seq == 0) != (self.prev.as_bytes() == &[0; 32]) {
            return Err("`prev` is zeros at place 0 and nowhere else".into());
        }
        if self.time > limits::LATEST_TIME {
            return Err(format!("the time {} is behind the year 9999", self.time));
        }
        match &self.body {
            Body::Built(_) | Body::Failed(_) => Ok(()),
            Body::Retract { first, last } if first <= last && *last < self.seq => Ok(()),
            Body::Retract { first, last } => {
                Err(format!("place {} cannot retract {first} to {last}", self.seq))
            }
            Body::Succeed { successor, .. } if *successor != self.attester => Ok(()),
            Body::Succeed { .. } => Err("a key cannot succeed itself".into()),
        }
    }
}

/// Why a statement was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The statement is another attester's.
    #[error("a statement of `{says}` cannot be signed with the key `{key}`")]
    Attester {
        /// Whose it says to be.
        says: AttesterKey,
        /// The key at hand.
        key: AttesterKey,
    },
    /// No reader would accept it.
    #[error("not a valid statement")]
    Invalid(#[source] DecodeError),
}

/// A well-formed statement with a signature that nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unverified(Signed);

impl Unverified {
    /// Reads 64 bytes of signature and a statement of at most [`limits::STATEMENT_BYTES`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`], its offsets counted from the start of the statement.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some((_, statement)) = bytes.split_at_checked(SIGNATURE_BYTES) else {
            let why = format!("a signature has {SIGNATURE_BYTES} bytes, found {}", bytes.len());
            return Err(DecodeError::Malformed(refuse(0, why)));
        };
        let statement = Statement::from_bytes(statement)?;
        Ok(Self(Signed { statement, bytes: bytes.to_vec() }))
    }

    /// What it claims to say.
    pub fn statement(&self) -> &Statement {
        &self.0.statement
    }

    /// Signature and statement, as they were read.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Its id, if it says what it claims to say.
    pub fn id(&self) -> StatementId {
        self.0.id()
    }

    /// Checks the signature, and the consent in a succession.
    ///
    /// # Errors
    ///
    /// [`SignatureError`].
    pub fn verify(self) -> Result<Signed, SignatureError> {
        let verifier = Verifier::new(self.0.statement.attester)?;
        self.verify_by(&verifier)
    }

    /// As [`Unverified::verify`], with a key made ready before: for many statements of one attester.
    ///
    /// # Errors
    ///
    /// [`SignatureError`]; also if the statement is another attester's.
    pub fn verify_by(self, verifier: &Verifier) -> Result<Signed, SignatureError> {
        let Statement { attester, body, .. } = &self.0.statement;
        if *attester != verifier.key() {
            return Err(SignatureError::Forged(verifier.key()));
        }
        verifier.verify(Context::Statement, self.0.unsigned(), &self.0.signature())?;
        if let Body::Succeed { successor, consent } = body {
            let both = succession(attester, successor);
            Verifier::new(*successor)?.verify(Context::Succession, &both, consent)?;
        }
        Ok(self.0)
    }

    /// Takes it as verified, because it was before it was stored: for one's own disk alone.
    pub fn assume_verified(self) -> Signed {
        self.0
    }
}

/// As it is sent to others, who have to verify it themselves.
impl From<Signed> for Unverified {
    fn from(signed: Signed) -> Self {
        Self(signed)
    }
}

/// A statement that its attester signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    statement: Statement,
    bytes: Vec<u8>,
}

impl Signed {
    /// What it says.
    pub fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Signature and statement, as [`Unverified::from_bytes`] reads them.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Its id, in which the signature has no part: one statement may have several signatures.
    pub fn id(&self) -> StatementId {
        StatementId::from_bytes(blake3::derive_key(ID, self.unsigned()))
    }

    fn unsigned(&self) -> &[u8] {
        &self.bytes[SIGNATURE_BYTES..]
    }

    fn signature(&self) -> Signature {
        let mut bytes = [0; SIGNATURE_BYTES];
        bytes.copy_from_slice(&self.bytes[..SIGNATURE_BYTES]);
        Signature::from_bytes(bytes)
    }
}

impl Platform {
    /// The platform of this process, running `engine`.
    pub fn here(engine: Name) -> Self {
        // Rust's names of both are made of letters, digits and `_`.
        let name = |text: &str| Name::new(text).expect("a name");
        Self { engine, arch: name(std::env::consts::ARCH), os: name(std::env::consts::OS) }
    }
}

const BUILT: &str = "built";
const FAILED: &str = "failed";
const RETRACT: &str = "retract";
const SUCCEED: &str = "succeed";

impl<C> Encode<C> for Statement {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), WriteFailed<W::Error>> {
        e.array(6)?.u8(VERSION)?.encode(self.attester)?.u64(self.seq)?.encode(self.prev)?.u64(self.time)?;
        self.body.encode(e, c)
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Statement {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, Malformed> {
        let at = d.position();
        array(d, 6)?;
        match d.u64()? {
            1 => {}
            other => return Err(refuse(at, format!("unknown version {other} of statements"))),
        }
        let statement = Self {
            attester: d.decode()?,
            seq: d.u64()?,
            prev: d.decode()?,
            time: d.u64()?,
            body: Body::decode(d, c)?,
        };
        statement.check().map_err(|why| refuse(at, why))?;
        Ok(statement)
    }
}

impl<C> Encode<C> for Body {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, c: &mut C) -> Result<(), WriteFailed<W::Error>> {
        match self {
            Self::Built(Attestation { action, outputs, witness, platform }) => {
                e.array(5)?.str(BUILT)?.encode(action)?;
                output::encode(outputs, e)?;
                e.encode(witness)?;
                platform.encode(e, c)
            }
            Self::Failed(Failure { action, step, ending, platform }) => {
                e.array(5)?.str(FAILED)?.encode(action)?.u32(*step)?;
                ending.encode(e, c)?;
                platform.encode(e, c)
            }
            Self::Retract { first, last } => e.array(3)?.str(RETRACT)?.u64(*first)?.u64(*last)?.ok(),
            Self::Succeed { successor, consent } => {
                e.array(3)?.str(SUCCEED)?.encode(successor)?.encode(consent)?.ok()
            }
        }
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Body {
    fn decode(d: &mut Decoder<'b>, c: &mut C) -> Result<Self, Malformed> {
        let at = d.position();
        let len = d.array()?;
        match d.str()? {
            BUILT => {
                elements(at, len, 5)?;
                Ok(Self::Built(Attestation {
                    action: d.decode()?,
                    outputs: output::decode(d)?,
                    witness: d.decode()?,
                    platform: Platform::decode(d, c)?,
                }))
            }
            FAILED => {
                elements(at, len, 5)?;
                Ok(Self::Failed(Failure {
                    action: d.decode()?,
                    step: d.u32()?,
                    ending: Ending::decode(d, c)?,
                    platform: Platform::decode(d, c)?,
                }))
            }
            RETRACT => {
                elements(at, len, 3)?;
                Ok(Self::Retract { first: d.u64()?, last: d.u64()? })
            }
            SUCCEED => {
                elements(at, len, 3)?;
                Ok(Self::Succeed { successor: d.decode()?, consent: d.decode()? })
            }
            other => Err(refuse(at, format!("unknown kind of statement `{other}`"))),
        }
    }
}

impl<C> Encode<C> for Ending {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), WriteFailed<W::Error>> {
        let (how, number) = match self {
            Self::Exit(code) => ("exit", *code),
            Self::Signal(signal) => ("signal", u32::from(*signal)),
            Self::Trap => ("trap", 0),
            Self::Unstable => ("unstable", 0),
        };
        e.array(2)?.str(how)?.u32(number)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Ending {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Malformed> {
        let at = d.position();
        array(d, 2)?;
        match (d.str()?, d.u32()?) {
            ("exit", code @ 1..) => Ok(Self::Exit(code)),
            ("signal", signal @ 1..=30) => Ok(Self::Signal(signal as u8)),
            ("trap", 0) => Ok(Self::Trap),
            ("unstable", 0) => Ok(Self::Unstable),
            (how, number) => Err(refuse(at, format!("no execution ends with `{how}` {number}"))),
        }
    }
}

impl<C> Encode<C> for Platform {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), WriteFailed<W::Error>> {
        e.array(3)?.encode(&self.engine)?.encode(&self.arch)?.encode(&self.os)?.ok()
    }
}

impl<'b, C> minicbor::Decode<'b, C> for Platform {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, Malformed> {
        array(d, 3)?;
        Ok(Self { engine: d.decode()?, arch: d.decode()?, os: d.decode()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{id::NarHash, output::Output};

    fn key(n: u8) -> SigningKey {
        SigningKey::from_bytes(&[n; 32])
    }

    fn attester(n: u8) -> AttesterKey {
        AttesterKey::of(&key(n))
    }

    /// The statement of attester 1 at a place, which follows some other.
    fn statement(seq: u64, body: Body) -> Statement {
        let prev = StatementId::from_bytes([if seq == 0 { 0 } else { 7 }; 32]);
        Statement { attester: attester(1), seq, prev, time: 0, body }
    }

    fn platform() -> Platform {
        Platform::here(Name::new("wasmtime-48.0.8").unwrap())
    }

    fn built() -> Body {
        let outputs = Outputs::from([(Name::out(), Output { nar: NarHash::of(b"x"), size: 1 })]);
        let (action, witness) = (ActionId::from_bytes([1; 32]), Some(Witness::from_bytes([2; 32])));
        Body::Built(Attestation { action, outputs, witness, platform: platform() })
    }

    fn failed(step: u32, ending: Ending) -> Body {
        Body::Failed(Failure { action: ActionId::from_bytes([1; 32]), step, ending, platform: platform() })
    }

    fn retract(first: u64, last: u64) -> Body {
        Body::Retract { first, last }
    }

    /// Somebody goes on as `successor`; `who` consents that `old` does.
    fn succeed(old: u8, successor: u8, who: u8) -> Body {
        let both = succession(&attester(old), &attester(successor));
        let consent = Signature::sign(&key(who), Context::Succession, &both);
        Body::Succeed { successor: attester(successor), consent }
    }

    /// SPEC §10.2: what is signed is read as it was meant, and verifies.
    #[test]
    fn what_is_said_is_read() {
        let endings =
            [Ending::Exit(1), Ending::Exit(u32::MAX), Ending::Signal(30), Ending::Trap, Ending::Unstable];
        let mut said: Vec<_> = endings.into_iter().map(|ending| statement(0, failed(1, ending))).collect();
        said.extend([statement(0, built()), statement(1, retract(0, 0)), statement(9, retract(3, 8))]);
        said.extend([statement(1, failed(0, Ending::Signal(1))), statement(0, succeed(1, 2, 2))]);
        said.push(Statement { time: limits::LATEST_TIME, ..statement(1, built()) });
        for statement in said {
            let signed = statement.clone().sign(&key(1)).unwrap();
            let read = Unverified::from_bytes(signed.bytes()).unwrap();
            assert_eq!((read.statement(), read.bytes()), (&statement, signed.bytes()));
            assert_eq!(read.clone().assume_verified(), signed);
            assert_eq!(read.verify(), Ok(signed));
        }
    }

    /// SPEC §10.2: what readers would refuse is not signed.
    #[test]
    fn what_breaks_a_rule_is_not_signed() {
        let refused = |statement: Statement| statement.sign(&key(1)).unwrap_err();
        let why = |statement| match refused(statement) {
            SignError::Invalid(DecodeError::Malformed(source)) => source.to_string(),
            other => panic!("{other:?}"),
        };
        let prev = StatementId::from_bytes([7; 32]);
        let zeros = StatementId::from_bytes([0; 32]);
        assert!(why(Statement { prev, ..statement(0, built()) }).contains("`prev` is zeros"));
        assert!(why(Statement { prev: zeros, ..statement(1, built()) }).contains("`prev` is zeros"));
        let time = limits::LATEST_TIME + 1;
        assert!(why(Statement { time, ..statement(0, built()) }).contains("behind the year 9999"));
        for (seq, first, last) in [(0, 0, 0), (1, 0, 1), (1, 1, 1), (9, 2, 1), (9, 8, 9), (9, 9, 8)] {
            let wanted = format!("place {seq} cannot retract {first} to {last}");
            assert!(why(statement(seq, retract(first, last))).contains(&wanted), "{wanted}");
        }
        assert!(why(statement(0, succeed(1, 1, 1))).contains("a key cannot succeed itself"));
        for ending in [Ending::Exit(0), Ending::Signal(0), Ending::Signal(31)] {
            assert!(why(statement(0, failed(1, ending))).contains("no execution ends with"), "{ending:?}");
        }
        let anothers = Statement { attester: attester(2), ..statement(0, built()) };
        assert!(matches!(refused(anothers), SignError::Attester { .. }));
    }

    /// SPEC §10.1 and §10.5: only its attester says it, and only who consents is a successor.
    #[test]
    fn forgeries_are_noticed() {
        let verify = |bytes: &[u8]| Unverified::from_bytes(bytes).unwrap().verify().map(drop);
        let mut forged = statement(0, built()).sign(&key(1)).unwrap().bytes().to_vec();
        assert_eq!(verify(&forged), Ok(()));
        forged[0] ^= 1;
        assert_eq!(verify(&forged), Err(SignatureError::Forged(attester(1))));
        // A consent that is the old key's, and one that was given to somebody else.
        for body in [succeed(1, 2, 1), succeed(3, 2, 2)] {
            let unwilling = statement(0, body).sign(&key(1)).unwrap();
            assert_eq!(verify(unwilling.bytes()), Err(SignatureError::Forged(attester(2))));
        }
        let other = Verifier::new(attester(2)).unwrap();
        let honest = Unverified(statement(0, built()).sign(&key(1)).unwrap());
        assert_eq!(honest.verify_by(&other), Err(SignatureError::Forged(attester(2))));
    }

    /// SPEC §10.2: a statement has one id, however often it is signed; another has another.
    #[test]
    fn ids_are_of_what_is_said() {
        let signed = statement(0, built()).sign(&key(1)).unwrap();
        let mut again = signed.clone();
        again.bytes[0] ^= 1;
        assert_eq!(signed.id(), again.id());
        assert_ne!(signed.id(), statement(1, built()).sign(&key(1)).unwrap().id());
    }
}
