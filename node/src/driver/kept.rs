//! What the peer asks of the store: blocking, so for threads that may wait.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    num::NonZero,
    panic::resume_unwind,
    sync::Arc,
    thread,
};

use protocol::{
    evidence::{Evidence, UnverifiedEvidence},
    feed::FeedError,
    id::ActionId,
    key::AttesterKey,
    limits,
    message::{Answer, FeedHead, KnownAction, ProofsDigest, fitting},
};
use store::{Kept, LookupError, Store};
use trust::peer::{Fate, Peer, Serve, Sought};

use crate::judgement::{Judgement, JudgementError, RosterFile};

/// Statements that are told at once when the store has grown; the rest is had by asking.
const TOLD: usize = 1024;

/// Whose feeds are wanted whole: of all who have a vote, by the keys that they have by now, of
/// those from which these keys come, and one's own.
pub(super) fn follow(
    store: &Arc<Store>,
    roster: &RosterFile,
    own: Option<AttesterKey>,
) -> Result<BTreeSet<AttesterKey>, JudgementError> {
    let judgement = Judgement::new(store.clone(), roster.read()?, None, own)?;
    let roster = judgement.roster().iter().map(|(_, attester)| attester.key);
    Ok(roster.chain(judgement.voters().keys().map(|(key, _)| *key)).chain(own).collect())
}

/// Where a feed ends, and whether its key equivocated.
pub(super) fn head(store: &Store, attester: &AttesterKey) -> Result<(FeedHead, bool), LookupError> {
    let (head, bearing) = (store.head(attester)?, store.bearing(attester)?);
    let equivocated = bearing.iter().any(|proof| matches!(proof, Evidence::Equivocation(_)));
    let proofs = ProofsDigest::of(&bearing);
    Ok((FeedHead { attester: *attester, len: head.len(), last: head.last(), proofs }, equivocated))
}

/// What the store has of an attester that the peer was not told of.
pub(super) fn grown(
    store: &Store,
    peer: &Peer,
    attester: &AttesterKey,
) -> Result<Option<(Vec<UnverifiedEvidence>, FeedHead)>, LookupError> {
    let (now, _) = head(store, attester)?;
    let before = peer.head(attester);
    if before == Some(&now) {
        return Ok(None);
    }
    let from = before.map_or(0, |head| head.len);
    let mut items = Vec::new();
    for signed in store.statements(attester, from).take(TOLD) {
        items.push(Evidence::Statement(signed?).into());
    }
    if before.map(|head| head.proofs).unwrap_or_default() != now.proofs {
        items.extend(proofs(store, attester)?);
    }
    Ok(Some((items, now)))
}

pub(super) fn proofs(store: &Store, attester: &AttesterKey) -> Result<Vec<UnverifiedEvidence>, LookupError> {
    let bearing = store.bearing(attester)?.into_iter();
    Ok(bearing.filter(|e| !matches!(e, Evidence::Statement(_))).map(UnverifiedEvidence::from).collect())
}

/// What an action is that was executed here, and how long its inputs are as far as they are here.
fn known(store: &Store, id: &ActionId) -> Result<Answer, LookupError> {
    let Some(action) = store.action(id)? else { return Ok(Answer::Absent) };
    let size = |nar| fs::metadata(store.nar_path(nar)).map_or(0, |metadata| metadata.len());
    let sizes = action.inputs().map(size).collect();
    let name = store.realisation(id)?.map(|built| built.name);
    let answer = Answer::Action(Box::new(KnownAction { action, name, sizes }));
    Ok(if answer.to_bytes().len() <= limits::ANSWER_BYTES { answer } else { Answer::Absent })
}

/// The end of what an action printed here, if `own` has told others that it was executed here.
fn log(store: &Store, own: Option<&AttesterKey>, id: &ActionId) -> Result<Answer, LookupError> {
    let mut claims = store.claims(id)?.into_iter();
    if own.is_none() || !claims.any(|signed| Some(&signed.statement().attester) == own) {
        return Ok(Answer::Absent);
    }
    let read = || -> io::Result<Answer> {
        let mut file = fs::File::open(store.log_path(id))?;
        let before = file.metadata()?.len().saturating_sub(limits::LOG_BYTES as u64);
        file.seek(SeekFrom::Start(before))?;
        let mut end = Vec::new();
        // It may grow meanwhile.
        file.take(limits::LOG_BYTES as u64).read_to_end(&mut end)?;
        Ok(Answer::Log { end, before })
    };
    // Logs are collected with the store, and a fetch has none.
    Ok(read().unwrap_or(Answer::Absent))
}

/// What is asked for; `own` is this node's key.
pub(super) fn look_up(
    store: &Store,
    own: Option<&AttesterKey>,
    serve: &Serve,
) -> Result<Answer, LookupError> {
    let items = match serve {
        Serve::Statements { attester, from } => {
            let mut items = Vec::new();
            for signed in store.statements(attester, *from).take(limits::ITEMS) {
                items.push(Evidence::Statement(signed?).into());
            }
            items
        }
        Serve::Proofs { attester } => proofs(store, attester)?,
        Serve::Sought(Sought::Action(action)) => return known(store, action),
        Serve::Sought(Sought::Log(action)) => return log(store, own, action),
        Serve::Have { nars } => {
            return Ok(Answer::Have(nars.iter().filter(|nar| store.contains(nar)).copied().collect()));
        }
    };
    let n = fitting(&items, limits::ANSWER_BYTES);
    Ok(Answer::Items(items.into_iter().take(n).collect()))
}

/// Statements and proofs that one thread verifies, at least: in some milliseconds.
const SHARE: usize = 128;

/// Threads that verify one answer.
const VERIFIERS: usize = 4;

/// Verifies on some processors at once; `None` is what is forged.
fn verify(items: Vec<UnverifiedEvidence>) -> Vec<Option<Evidence>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(VERIFIERS);
    let share = items.len().div_ceil(threads).max(SHARE);
    let mut items = items.into_iter();
    let shares = std::iter::from_fn(|| Some(items.by_ref().take(share).collect::<Vec<_>>()));
    let shares = shares.take_while(|share| !share.is_empty());
    thread::scope(|scope| {
        let verify =
            |share: Vec<UnverifiedEvidence>| share.into_iter().map(|item| item.verify().ok()).collect();
        let verifying: Vec<_> =
            shares.map(|share| scope.spawn(move || -> Vec<_> { verify(share) })).collect();
        let verified = verifying.into_iter().map(|thread| thread.join());
        verified.flat_map(|share| share.unwrap_or_else(|panic| resume_unwind(panic))).collect()
    })
}

/// Verifies and keeps what came from elsewhere.
pub(super) fn keep(
    store: &Store,
    items: Vec<UnverifiedEvidence>,
) -> Result<(Vec<Fate>, Vec<FeedHead>), Box<dyn std::error::Error + Send + Sync>> {
    let about: BTreeSet<AttesterKey> = items.iter().map(UnverifiedEvidence::attester).collect();
    let verified = verify(items);
    let mut kept = store.keep(verified.iter().flatten().cloned())?.into_iter();
    let fate = |evidence: &Option<Evidence>| match evidence {
        None => Fate::Forged,
        Some(evidence) => match kept.next() {
            Some(Kept::New) => Fate::New,
            Some(Kept::Known) => Fate::Known,
            Some(Kept::Equivocation(proof)) => Fate::Equivocation(proof),
            Some(Kept::Refused(FeedError::Gap { place, .. })) => {
                Fate::Missing { attester: evidence.attester(), place }
            }
            Some(Kept::Refused(_)) => Fate::Refused,
            None => Fate::Failed,
        },
    };
    let fates = verified.iter().map(fate).collect();
    let heads =
        about.iter().map(|attester| Ok(head(store, attester)?.0)).collect::<Result<_, LookupError>>()?;
    Ok((fates, heads))
}
