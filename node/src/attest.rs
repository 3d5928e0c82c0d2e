//! Attesting: signing what this machine executed, in the feed of its key.
//!
//! The realisation is recorded first and the statement about it second, so a crash in between
//! costs the signature only: [`owed`] finds what is not signed yet.

use std::time::{SystemTime, UNIX_EPOCH};

use protocol::{
    id::ActionId,
    key::{AttesterKey, SigningKey},
    name::Name,
    statement::{Attestation, Body, Platform, Signed},
};
use store::{LookupError, Realisation, SayError, Store};
use trust::standing::{Against, Standing, Standings};

/// The engine, as attestations name it.
pub const ENGINE: &str = "wasmtime-48.0.8";

/// What became of something that was to be attested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attested {
    /// It was signed.
    New(Box<Signed>),
    /// This key said so before.
    Known,
    /// This key says something else, and has not withdrawn it: saying this, too, would be a
    /// contradiction, and neither would count.
    Contradicts {
        /// Where in its feed.
        place: u64,
    },
}

/// Why nothing was attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The store does not answer.
    #[error("cannot read what was said before")]
    Lookup(#[from] LookupError),
    /// It was not said.
    #[error("cannot sign what was built")]
    Say(#[from] SayError),
    /// Nothing that this key says from now on counts.
    #[error("cannot sign what was built: {attester} {}", match why {
        Against::Equivocated => "contradicted itself, and counts no more".to_owned(),
        Against::Revoked { since } => format!("was revoked from place {since} on"),
        Against::Ended { at } => format!("was succeeded at place {at}"),
        Against::Retracted { by } => format!("withdrew this at place {by}"),
    })]
    Void {
        /// The key.
        attester: AttesterKey,
        /// Why not.
        why: Against,
    },
}

/// Seconds since 1970 by this machine's clock.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

/// Where this process executes.
pub fn platform() -> Platform {
    Platform::here(Name::new(ENGINE).expect("a name"))
}

/// What `attester` says of something that was executed here.
pub fn attestation(built: &Realisation, attester: &AttesterKey) -> Attestation {
    Attestation {
        action: built.action,
        outputs: built.outputs.clone(),
        witness: built.transcript.map(|transcript| transcript.witness(attester, &built.action)),
        platform: platform(),
    }
}

/// Why the next statement of a key would not count; `None` if nothing is known against it.
///
/// # Errors
///
/// [`LookupError`].
pub fn against_next(store: &Store, attester: &AttesterKey) -> Result<Option<Against>, LookupError> {
    let standings: Standings = store.bearing(attester)?.iter().collect();
    let Some(standing) = standings.of(attester) else { return Ok(None) };
    Ok(standing.against(store.head(attester)?.len()))
}

/// Says what was executed here, unless it was said.
///
/// # Errors
///
/// [`AttestError`].
pub fn attest(store: &Store, key: &SigningKey, built: &Realisation) -> Result<Attested, AttestError> {
    let attester = AttesterKey::of(key);
    match said(store, &attester, built)? {
        Some(known) => Ok(known),
        None => {
            if let Some(why) = against_next(store, &attester)? {
                return Err(AttestError::Void { attester, why });
            }
            let body = Body::Built(attestation(built, &attester));
            let signed = store.say(key, now(), [body])?.remove(0);
            Ok(Attested::New(Box::new(signed)))
        }
    }
}

/// What is executed here and not said yet by `key`, the latest first.
///
/// # Errors
///
/// [`LookupError`].
pub fn owed(store: &Store, key: &AttesterKey) -> Result<Vec<Realisation>, LookupError> {
    let mut owed = Vec::new();
    for built in store.realisations()? {
        let built = built?;
        if said(store, key, &built)?.is_none() {
            owed.push(built);
        }
    }
    Ok(owed)
}

/// What this machine executed and its owner withdrew: a mistake, as of an engine that was mended
/// since. It is as if it had not been executed, and may be executed again.
#[derive(Debug, Clone, Default)]
pub struct Withdrawn(Option<(AttesterKey, Standing)>);

impl Withdrawn {
    /// What `key`, this machine's, withdrew.
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub fn by(store: &Store, key: Option<&AttesterKey>) -> Result<Self, LookupError> {
        let Some(key) = key else { return Ok(Self(None)) };
        let standings: Standings = store.bearing(key)?.iter().collect();
        // Most machines never withdraw anything, and are not to look for it.
        let standing = standings.of(key).filter(|standing| standing.has_retracted());
        Ok(Self(standing.map(|standing| (*key, standing.clone()))))
    }

    /// Whether this is: it was said, and wherever it was said it was withdrawn.
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub fn has(&self, store: &Store, built: &Realisation) -> Result<bool, LookupError> {
        let Some((key, standing)) = &self.0 else { return Ok(false) };
        let claims = store.claims(&built.action)?;
        let said = claims.iter().map(Signed::statement).filter(|statement| {
            statement.attester == *key
                && matches!(&statement.body, Body::Built(said) if said.outputs == built.outputs)
        });
        let mut said = said.map(|statement| standing.against(statement.seq)).peekable();
        Ok(said.peek().is_some() && said.all(|against| matches!(against, Some(Against::Retracted { .. }))))
    }

    /// What this machine executed of an action, if that stands.
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub fn standing(&self, store: &Store, action: &ActionId) -> Result<Option<Realisation>, LookupError> {
        match store.realisation(action)? {
            Some(built) if !self.has(store, &built)? => Ok(Some(built)),
            Some(_) | None => Ok(None),
        }
    }
}

/// What `key` said of the action before; `None` if nothing that counts.
fn said(store: &Store, key: &AttesterKey, built: &Realisation) -> Result<Option<Attested>, LookupError> {
    let standings: Standings = store.bearing(key)?.iter().collect();
    let counts = |place| standings.of(key).is_none_or(|standing| standing.against(place).is_none());
    let mut known = None;
    for claim in store.claims(&built.action)? {
        let statement = claim.statement();
        let Body::Built(said) = &statement.body else { continue };
        if statement.attester != *key || !counts(statement.seq) {
            continue;
        }
        if said.outputs != built.outputs {
            return Ok(Some(Attested::Contradicts { place: statement.seq }));
        }
        // Said without a witness, it is said again with one.
        if said.witness.is_some() || built.transcript.is_none() {
            known = Some(Attested::Known);
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_named_as_it_is() {
        let lock = include_str!("../../Cargo.lock");
        let version = ENGINE.strip_prefix("wasmtime-").unwrap();
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{version}\"")));
    }
}
