//! Traces (SPEC §11.4): at which host call two executions of one action part.
//!
//! ```text
//! Transcript, as it grows ──▶ Trace ──▶ a file, carried to whom one disagrees with ──▶ first_difference
//! ```
//!
//! A mark for each call, with seven bytes of the transcript up to it: enough to see that two
//! executions were the same so far, and too little to make a witness of.

use crate::{
    id::ActionId,
    limits,
    witness::{STEP, Transcript},
};

/// What a trace begins with.
pub const MAGIC: &[u8] = b"assize trace 1\n";

/// Bytes of a mark: the function's number, or [`STEP`], and the first bytes of the transcript.
const MARK_BYTES: usize = 8;

/// Bytes of magic and action.
const HEAD_BYTES: usize = MAGIC.len() + 32;

/// How many functions there are.
const FUNCTIONS: u8 = 46;

/// How an execution went, call by call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    action: ActionId,
    marks: Vec<[u8; MARK_BYTES]>,
}

/// What happened at a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A step began.
    Step,
    /// The function of that number was called (SPEC §11.1).
    Call(u8),
}

/// Where two executions part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parting {
    /// The first mark that is not the same, from 0.
    pub mark: usize,
    /// In which step, from 1; 0 if before the first.
    pub step: usize,
    /// At which call of that step, from 1; 0 if at its beginning.
    pub call: usize,
    /// What happens there in the one; `None` if it has ended.
    pub here: Option<Event>,
    /// What happens there in the other. If it is the same, it differs in arguments, result or content.
    pub there: Option<Event>,
}

/// Why bytes are no trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// They begin with something else.
    #[error("not a trace")]
    Magic,
    /// They end within the action or a mark.
    #[error("the trace is cut off")]
    Cut,
    /// There are too many of them.
    #[error("the trace has {marks} marks, more than {}", limits::TRACE_MARKS)]
    TooLong {
        /// So many.
        marks: usize,
    },
    /// The first mark is a call.
    #[error("the trace does not begin with a step")]
    NoStep,
    /// A mark is of nothing that there is.
    #[error("mark {mark} is of function {function}, which there is not")]
    Function {
        /// Which mark, from 0.
        mark: usize,
        /// The number that it has.
        function: u8,
    },
}

impl Trace {
    /// The trace of an execution that did nothing yet.
    pub fn new(action: ActionId) -> Self {
        Self { action, marks: Vec::new() }
    }

    /// Of which action.
    pub fn action(&self) -> &ActionId {
        &self.action
    }

    /// How many steps and calls it has.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Whether it may have been longer, but for the limit.
    pub fn is_full(&self) -> bool {
        self.marks.len() >= limits::TRACE_MARKS
    }

    /// Notes what has happened just now; `transcript` has it already. Passed over if the trace is full.
    pub fn push(&mut self, event: Event, transcript: &Transcript) {
        if self.is_full() {
            return;
        }
        let mut mark = [0; MARK_BYTES];
        mark[0] = match event {
            Event::Step => STEP,
            Event::Call(function) => function,
        };
        mark[1..].copy_from_slice(&transcript.finish().as_bytes()[..MARK_BYTES - 1]);
        self.marks.push(mark);
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        [MAGIC, self.action.as_bytes(), self.marks.as_flattened()].concat()
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`TraceError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TraceError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(TraceError::Magic)?;
        let (action, rest) = rest.split_first_chunk::<32>().ok_or(TraceError::Cut)?;
        let (marks, cut) = rest.as_chunks::<MARK_BYTES>();
        if !cut.is_empty() {
            return Err(TraceError::Cut);
        }
        if marks.len() > limits::TRACE_MARKS {
            return Err(TraceError::TooLong { marks: marks.len() });
        }
        if marks.first().is_some_and(|mark| mark[0] != STEP) {
            return Err(TraceError::NoStep);
        }
        let strange = |mark: &[u8; MARK_BYTES]| mark[0] >= FUNCTIONS && mark[0] != STEP;
        if let Some(mark) = marks.iter().position(strange) {
            return Err(TraceError::Function { mark, function: marks[mark][0] });
        }
        Ok(Self { action: ActionId::from_bytes(*action), marks: marks.to_vec() })
    }

    /// The longest file, in bytes.
    pub const MAX_BYTES: u64 = (HEAD_BYTES + limits::TRACE_MARKS * MARK_BYTES) as u64;

    /// Where two executions part; `None` if they are the same, as far as the traces go.
    ///
    /// That they are of the same action is for the caller to see to.
    pub fn first_difference(&self, other: &Self) -> Option<Parting> {
        let same = self.marks.iter().zip(&other.marks).take_while(|(one, other)| one == other).count();
        if same == self.marks.len() && same == other.marks.len() {
            return None;
        }
        let at = |trace: &Self| trace.marks.get(same).map(event);
        let (here, there) = (at(self), at(other));
        let begun = self.marks[..same].iter().rposition(|mark| mark[0] == STEP);
        let steps = self.marks[..same].iter().filter(|mark| mark[0] == STEP).count();
        let (step, call) = match begun {
            Some(begun) => (steps, same - begun),
            None => (0, 0),
        };
        Some(Parting { mark: same, step, call, here, there })
    }
}

fn event(mark: &[u8; MARK_BYTES]) -> Event {
    match mark[0] {
        STEP => Event::Step,
        function => Event::Call(function),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trace of calls, each with an argument; `None` begins a step.
    fn trace(events: &[Option<(u8, u64)>]) -> Trace {
        let action = ActionId::from_bytes([1; 32]);
        let (mut transcript, mut trace) = (Transcript::new(&action), Trace::new(action));
        for (n, event) in events.iter().enumerate() {
            match event {
                None => {
                    transcript.step(n as u32);
                    trace.push(Event::Step, &transcript);
                }
                Some((function, argument)) => {
                    transcript.call(*function, &[*argument], 0, []);
                    trace.push(Event::Call(*function), &transcript);
                }
            }
        }
        trace
    }

    #[test]
    fn the_first_difference_is_found() {
        let one = trace(&[None, Some((1, 1)), Some((2, 1)), None, Some((3, 1)), Some((4, 1))]);
        assert_eq!(one.first_difference(&one.clone()), None);
        // The same function with another argument; what follows differs too, and is not looked at.
        let other = trace(&[None, Some((1, 1)), Some((2, 1)), None, Some((3, 2)), Some((5, 1))]);
        let call = |n| Some(Event::Call(n));
        let parting = Parting { mark: 4, step: 2, call: 1, here: call(3), there: call(3) };
        assert_eq!(one.first_difference(&other), Some(parting));
        let other = trace(&[None, Some((1, 1)), Some((7, 1))]);
        let parting = Parting { mark: 2, step: 1, call: 2, here: call(2), there: call(7) };
        assert_eq!(one.first_difference(&other), Some(parting));
        // One goes on where the other has ended.
        let other = trace(&[None, Some((1, 1)), Some((2, 1))]);
        let parting = Parting { mark: 3, step: 1, call: 3, here: Some(Event::Step), there: None };
        assert_eq!(one.first_difference(&other), Some(parting));
        let parting = Parting { mark: 3, step: 1, call: 3, here: None, there: Some(Event::Step) };
        assert_eq!(other.first_difference(&one), Some(parting));
        let parting = Parting { mark: 0, step: 0, call: 0, here: Some(Event::Step), there: None };
        assert_eq!(one.first_difference(&trace(&[])), Some(parting));
    }

    /// A witness cannot be made of what a trace tells.
    #[test]
    fn the_transcript_is_not_in_it() {
        let events = [None, Some((1, 1))];
        let trace = trace(&events).to_bytes();
        let mut transcript = Transcript::new(&ActionId::from_bytes([1; 32]));
        transcript.step(0);
        transcript.call(1, &[1], 0, []);
        let secret = *transcript.finish().as_bytes();
        assert!(trace.ends_with(&secret[..7]));
        assert!(!trace.windows(8).any(|bytes| bytes == &secret[..8]));
    }
}
