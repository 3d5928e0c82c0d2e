//! What is looked for of actions, at one node after the other until one has it: what they are, because
//! somebody wants them executed, and what they printed (SPEC §17.1).

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    id::ActionId,
    message::{Answer, Request},
};

use super::{Effect, NodeId, Peer, Time, Why};
use crate::limits::SEEKS;

/// What is looked for of an action, at one node after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sought {
    /// What is executed.
    Action(ActionId),
    /// What it printed when somebody executed it.
    Log(ActionId),
}

impl Sought {
    /// What a request looks for, if it is one that one node after the other is asked.
    pub(super) fn by(request: &Request) -> Option<Self> {
        match request {
            Request::Action { action } => Some(Self::Action(*action)),
            Request::Log { action } => Some(Self::Log(*action)),
            _ => None,
        }
    }

    fn request(self) -> Request {
        match self {
            Self::Action(action) => Request::Action { action },
            Self::Log(action) => Request::Log { action },
        }
    }

    fn is_answered(self, answer: &Answer) -> bool {
        match (self, answer) {
            (Self::Action(id), Answer::Action(known)) => known.action.id() == id,
            (Self::Log(_), Answer::Log { .. }) => true,
            _ => false,
        }
    }
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Seeks {
    /// Who was asked.
    asked: BTreeMap<Sought, BTreeSet<NodeId>>,
    /// Who knew the last one. Others are asked first the next time, so that no one node is always
    /// the one to be believed how long inputs are.
    last: Option<NodeId>,
}

impl Peer {
    /// Something is looked for: connected nodes are asked, one after the other.
    pub(super) fn seek(&mut self, sought: Sought, now: Time, effects: &mut Vec<Effect>) {
        if self.seeks.asked.contains_key(&sought) {
            return;
        }
        if self.seeks.asked.len() >= SEEKS {
            return effects.push(Effect::Sought { sought, found: None });
        }
        self.seeks.asked.insert(sought, BTreeSet::new());
        self.seek_on(sought, now, effects);
    }

    /// Asks the next node for what is looked for, or gives up.
    pub(super) fn seek_on(&mut self, sought: Sought, now: Time, effects: &mut Vec<Effect>) {
        let Some(asked) = self.seeks.asked.get_mut(&sought) else { return };
        let last = self.seeks.last;
        // Who has been silent comes last: each may take half a minute to say nothing.
        let left = self.links.iter().filter(|(node, _)| !asked.contains(node));
        let next = left.min_by_key(|(node, link)| (link.strikes(now), last >= Some(**node), **node));
        match next.map(|(node, _)| *node) {
            Some(node) => {
                asked.insert(node);
                self.ask(node, sought.request(), now, effects);
            }
            None => {
                self.seeks.asked.remove(&sought);
                effects.push(Effect::Sought { sought, found: None });
            }
        }
    }

    /// A node that was asked for something says, or does not.
    pub(super) fn sought(
        &mut self,
        node: NodeId,
        sought: Sought,
        answer: Option<Answer>,
        now: Time,
        effects: &mut Vec<Effect>,
    ) {
        match answer {
            Some(answer) if sought.is_answered(&answer) => {
                if self.seeks.asked.remove(&sought).is_some() {
                    self.seeks.last = Some(node);
                    effects.push(Effect::Sought { sought, found: Some(answer) });
                }
                return;
            }
            Some(Answer::Absent | Answer::Busy) | None => {}
            Some(_) => self.strike(node, Why::Nonsense, now, effects),
        }
        self.seek_on(sought, now, effects);
    }
}
