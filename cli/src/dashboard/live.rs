//! What the rebuilder of this node does, as far as somebody who looks now may want to know it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use node::{attest, build::Progress, watch::Event};
use protocol::{id::ActionId, name::Name};

use crate::{commands::watch, output::Line};

/// Events that are remembered.
const EVENTS: usize = 200;

/// Bytes of the log of what is executed that are remembered, at least; twice that at most.
const LOG_BYTES: usize = 16 << 10;

/// An execution.
pub(super) struct Execution {
    pub(super) name: Name,
    pub(super) begun: Instant,
    /// What it does now.
    pub(super) doing: String,
    /// The end of what it printed.
    pub(super) log: Vec<u8>,
}

/// What happens.
#[derive(Default)]
pub(super) struct Seen {
    /// What is executed now; there are no more than the rebuilder executes at once.
    pub(super) executions: BTreeMap<ActionId, Execution>,
    /// How many wait.
    pub(super) waiting: usize,
    /// What happened, the latest first, with the time in seconds since 1970.
    pub(super) events: VecDeque<(u64, Line)>,
}

/// What the rebuilder does.
#[derive(Default)]
pub(crate) struct Live(Mutex<Seen>);

impl Live {
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears what happens.
    pub(crate) fn hear(&self, event: &Event<'_>) {
        let mut seen = self.seen();
        match event {
            Event::Began { action, name } => {
                let (doing, log) = ("begins".into(), Vec::new());
                let execution = Execution { name: (*name).clone(), begun: Instant::now(), doing, log };
                seen.executions.insert(*action, execution);
            }
            Event::Goes { action, progress } => {
                let Some(execution) = seen.executions.get_mut(action) else { return };
                match progress {
                    Progress::Compiling { module, .. } => execution.doing = format!("compiling {module}"),
                    Progress::Step { step, of } => execution.doing = format!("step {step} of {of}"),
                    Progress::Log(bytes) => {
                        let log = &mut execution.log;
                        log.extend_from_slice(&bytes[bytes.len().saturating_sub(LOG_BYTES)..]);
                        if log.len() > 2 * LOG_BYTES {
                            log.drain(..log.len() - LOG_BYTES);
                        }
                    }
                }
            }
            Event::Rebuilt { action, .. }
            | Event::Refused { action, .. }
            | Event::Postponed { action, .. } => {
                seen.executions.remove(action);
            }
            Event::PassedOver { .. } => {}
            Event::Waiting { actions } => seen.waiting = *actions,
        }
        if !matches!(event, Event::Waiting { .. })
            && let Some(line) = watch::describe(event)
        {
            seen.events.push_front((attest::now(), line));
            seen.events.truncate(EVENTS);
        }
    }
}
