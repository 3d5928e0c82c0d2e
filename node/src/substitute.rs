//! Substitutes: what others built, taken instead of building it, once enough of them agree.
//!
//! ```text
//! action ─▶ Judgement: accepted outputs ─▶ Node: their bytes, from whoever has them ─▶ store
//! ```
//!
//! What is accepted is decided by the judge from statements alone; where bytes come from is of no
//! interest, because they are verified against the accepted hash.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use protocol::{
    action::{Action, FetchAction},
    id::{ActionId, NarHash},
    limits::PIECE_BYTES,
    name::Name,
    output::Outputs,
    sri::Sri,
};
use store::{LookupError, Store};
use tokio::task::spawn_blocking;
use trust::{peer::GaveUp, verdict::Outcome};

use crate::{
    control::{ControlError, Node},
    driver::Fetched,
    fetch,
    judgement::Judgement,
};

/// Archives of one action that are fetched at once.
const AT_ONCE: usize = 8;

/// Why an archive is not had from others.
#[derive(Debug, thiserror::Error)]
pub enum SubstituteError {
    /// The node cannot be talked to.
    #[error(transparent)]
    Node(#[from] ControlError),
    /// There is no node to ask.
    #[error("no node runs that others could be asked by")]
    NoNode,
    /// The node does not get it.
    #[error("{nar} is not to be had: {}", said(*why))]
    NotHad {
        /// Which.
        nar: NarHash,
        /// Why.
        why: GaveUp,
    },
    /// It is not the file that a fetch wants.
    #[error("others agree on {nar}, which is not the file with the hash {wanted}")]
    Other {
        /// What others say.
        nar: NarHash,
        /// The hash of the file that is wanted.
        wanted: Sri,
    },
    /// It came, and cannot be read.
    #[error(transparent)]
    Read(#[from] store::GetError),
}

/// Checks that outputs that are here are what a fetch gives. However many agree about another file,
/// it is not the one whose hash the derivation names (SPEC §16).
///
/// # Errors
///
/// [`SubstituteError::Other`] or [`SubstituteError::Read`].
pub fn verify(store: &Store, fetch: &FetchAction, outputs: &Outputs) -> Result<(), SubstituteError> {
    for output in outputs.values() {
        if !fetch::gives(fetch, &store.open_nar(&output.nar)?) {
            return Err(SubstituteError::Other { nar: output.nar, wanted: fetch.sri.clone() });
        }
    }
    Ok(())
}

fn said(why: GaveUp) -> &'static str {
    match why {
        GaveUp::Nowhere => "nobody who can be reached has it",
        GaveUp::Disk => "the disk failed, or is full",
        GaveUp::Damaged => "what came is no archive, or the disk lost a part of it",
        GaveUp::TooMany => "the node fetches too many others",
    }
}

/// What others built, and the way to it.
pub struct Substitutes {
    judgement: Judgement,
    node: Option<Node>,
}

impl fmt::Debug for Substitutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Substitutes").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Substitutes {
    /// What `judgement` accepts, by way of `node`; without one, only what is here already is had.
    pub fn new(judgement: Judgement, node: Option<Node>) -> Self {
        Self { judgement, node }
    }

    /// The way to others.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Whether others can be asked.
    pub fn reach_others(&self) -> bool {
        self.node.is_some()
    }

    /// What enough others got from an action of a package.
    ///
    /// # Errors
    ///
    /// [`LookupError`].
    pub fn accepted(&self, action: &ActionId, package: &Name) -> Result<Option<Outputs>, LookupError> {
        match self.judgement.verdict(action, package)?.outcome {
            Outcome::Accepted { outputs } => Ok(Some(outputs)),
            Outcome::Pending | Outcome::Disputed | Outcome::Untrusted => Ok(None),
        }
    }

    /// Has the archives of these outputs of an action, as far as they are not here. `progress` is
    /// told bytes that are here of those that were missing.
    ///
    /// # Errors
    ///
    /// [`SubstituteError`]; what came before it is kept.
    pub async fn fetch(
        &self,
        store: &Arc<Store>,
        action: &Action,
        outputs: &Outputs,
        progress: impl Fn(u64, u64),
    ) -> Result<(), SubstituteError> {
        let missing = outputs.values().filter(|output| !store.contains(&output.nar));
        let missing: BTreeMap<NarHash, u64> = missing.map(|output| (output.nar, output.size)).collect();
        self.fetch_all(&missing, progress).await?;
        let Action::Fetch(fetch) = action.clone() else { return Ok(()) };
        let (store, outputs) = (store.clone(), outputs.clone());
        match spawn_blocking(move || verify(&store, &fetch, &outputs)).await {
            Ok(verified) => verified,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Has these archives, each with its bytes. `progress` is as for [`Substitutes::fetch`].
    ///
    /// # Errors
    ///
    /// [`SubstituteError`]; what came before it is kept.
    pub async fn fetch_all(
        &self,
        missing: &BTreeMap<NarHash, u64>,
        progress: impl Fn(u64, u64),
    ) -> Result<(), SubstituteError> {
        download(self.node.as_ref(), missing, progress).await
    }
}

/// So many bytes are to be had. The sizes are what somebody attests: together they may be more than
/// can be counted.
pub fn total(sizes: &BTreeMap<NarHash, u64>) -> u64 {
    sizes.values().fold(0, |sum, size| sum.saturating_add(*size))
}

/// Has these archives, each with its bytes, by way of `node`. `progress` is told bytes that are here
/// of those that were missing.
///
/// # Errors
///
/// [`SubstituteError`]; what came before it is kept.
pub async fn download(
    node: Option<&Node>,
    missing: &BTreeMap<NarHash, u64>,
    progress: impl Fn(u64, u64),
) -> Result<(), SubstituteError> {
    if missing.is_empty() {
        return Ok(());
    }
    let node = node.ok_or(SubstituteError::NoNode)?;
    let all = total(missing);
    let here: Mutex<BTreeMap<NarHash, u64>> = Mutex::default();
    let came = |nar: NarHash, bytes: u64| {
        let mut here = here.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        here.insert(nar, bytes);
        progress(total(&here), all);
    };
    let fetch = |(nar, size): (&NarHash, &u64)| {
        let (nar, size, came) = (*nar, *size, &came);
        async move {
            let step = |state| {
                if let Fetched::Coming { here, .. } = state {
                    came(nar, here.saturating_mul(PIECE_BYTES).min(size));
                }
            };
            match node.fetch(nar, size, step).await? {
                Fetched::Failed { why } => Err(SubstituteError::NotHad { nar, why }),
                Fetched::Done | Fetched::Coming { .. } => {
                    came(nar, size);
                    Ok(())
                }
            }
        }
    };
    stream::iter(missing).map(fetch).buffer_unordered(AT_ONCE).try_collect::<()>().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Anybody may attest an archive of any length.
    #[test]
    fn lengths_beyond_counting() {
        let sizes =
            [(1, u64::MAX), (2, u64::MAX), (3, 1)].map(|(n, size)| (NarHash::from_bytes([n; 32]), size));
        assert_eq!(total(&sizes.into()), u64::MAX);
    }
}
