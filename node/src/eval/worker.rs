//! The process that evaluates: it limits itself, reads a request, answers, and ends.
//!
//! ```text
//! stdin: one Order as JSON      stdout: one answer (`wire.rs`)      stderr: lines, see `report`
//! ```
//!
//! The evaluation has a thread of its own with a big stack. The other thread watches the parser,
//! which can take exponential time. Values are never dropped: the process ends instead, because
//! dropping a deep value recurses.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use serde::{Deserialize, Serialize};

use super::{
    Pack, Request,
    error::{At, EvalError, Fault, clean},
    run,
    session::Watch,
    wire::Answer,
};

/// What the parent writes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) request: Request,
    pub(super) memory: u64,
    pub(super) cpu_seconds: u64,
    pub(super) answer_bytes: u64,
}

/// Longest order, in bytes: two paths and an attribute.
pub(super) const ORDER_BYTES: u64 = 1 << 20;

/// Stack of the evaluation. Only what is used of it is ever mapped.
const STACK: usize = 256 << 20;

/// What parsing one file may take. A megabyte takes about half a second; more is backtracking.
const PARSING: Duration = Duration::from_secs(10);

/// How often the parser is watched.
const GLANCE: Duration = Duration::from_millis(50);

/// What a line on stderr that tells what is being done begins with.
pub(super) const DOING: char = '\u{1d}';

/// What a line on stderr that is output of `std.trace` begins with.
pub(super) const TRACE: char = '\u{1e}';

/// Longest output of one `std.trace`, in bytes.
const TRACE_BYTES: usize = 16 << 10;

/// Tells the parent what is being done, for the case that it kills this process.
pub(super) fn report(doing: &str) {
    say(DOING, doing);
}

/// Passes on what `std.trace` is given.
pub(super) fn trace(text: &str) {
    let end = (0..=TRACE_BYTES.min(text.len())).rev().find(|b| text.is_char_boundary(*b)).unwrap_or(0);
    let dots = if end < text.len() { "…" } else { "" };
    for line in format!("{}{dots}", &text[..end]).lines() {
        say(TRACE, line);
    }
}

fn say(kind: char, text: &str) {
    let line = format!("{kind}{}\n", clean(text).replace('\n', " "));
    // If nobody listens, there is nobody to tell.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

/// Runs this process as a worker: the command line calls it for a hidden subcommand.
///
/// `pack` hashes the archive of a source. Returns when the answer is written; then the process must
/// end. Fails, with a code of 1, only if nobody takes the answer.
pub fn worker(pack: Pack) -> ExitCode {
    // Not by way of `Stdout`, which looks for the ends of lines.
    let Ok(out) = std::io::stdout().as_fd().try_clone_to_owned().map(File::from) else {
        return ExitCode::FAILURE;
    };
    let written = match order() {
        Ok(order) => {
            let answer = Answer::new(out, order.answer_bytes);
            evaluate(order, pack, answer)
        }
        Err(why) => Answer::new(out, u64::MAX).end(Err(Fault::Worker { why }.into())),
    };
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads the order and puts its limits on this process.
fn order() -> Result<Order, String> {
    let mut text = Vec::new();
    let stdin = std::io::stdin().lock();
    stdin.take(ORDER_BYTES).read_to_end(&mut text).map_err(|e| e.to_string())?;
    let order: Order = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    // At the first limit of processor time comes SIGXCPU, which says what it is about.
    let both = |limit: u64| Rlimit { current: Some(limit), maximum: Some(limit.saturating_add(5)) };
    let limits = [(Resource::Data, order.memory), (Resource::Cpu, order.cpu_seconds)];
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|e| format!("cannot forbid core dumps: {e}"))?;
    for (resource, limit) in limits {
        setrlimit(resource, both(limit)).map_err(|e| format!("cannot limit {resource:?}: {e}"))?;
    }
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| e.to_string())?;
    Ok(order)
}

/// What a panic of the evaluator means.
fn panicked(message: String) -> Fault {
    // So says `stacker`, which grows the stack piece by piece, when it gets no more memory.
    if message.contains("mprotect/mmap failed") {
        return Fault::StackOverflow { doing: None };
    }
    Fault::Panicked { message }
}

/// Evaluates on a thread with a big stack, while this one watches; the answer is written by either.
fn evaluate(order: Order, pack: Pack, answer: Answer<File>) -> std::io::Result<()> {
    let watch = Arc::new(Watch::reporting());
    let answer = Arc::new(answer);
    let (send, receive) = mpsc::sync_channel(1);
    let panic = Arc::new(Mutex::new(String::new()));
    let said = panic.clone();
    std::panic::set_hook(Box::new(move |info| {
        let message = clean(info.payload_as_str().unwrap_or("panic")).replace('\n', " ");
        let line = info.location().map_or(0, std::panic::Location::line);
        let file = info.location().map_or("", |l| l.file().rsplit('/').next().unwrap_or(""));
        *said.lock().unwrap_or_else(PoisonError::into_inner) = format!("{message} ({file}:{line})");
    }));
    let (watched, answered) = (watch.clone(), answer.clone());
    let spawned = thread::Builder::new().name("evaluation".into()).stack_size(STACK).spawn(move || {
        let made = answered.clone();
        let made = Box::new(move |encoding: &[u8]| made.derivation(encoding));
        let result = catch_unwind(AssertUnwindSafe(|| run::run(&order.request, pack, watched, made)));
        let result = result.unwrap_or_else(|_| {
            let message = panic.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Err(panicked(message).into())
        });
        // The other thread waits for this unless it has ended the answer itself.
        let _ = send.send(answered.end(result));
        // The end of this thread would drop what the evaluator keeps for it.
        loop {
            thread::park();
        }
    });
    if let Err(e) = spawned {
        return answer.end(Err(Fault::Worker { why: e.to_string() }.into()));
    }
    loop {
        match receive.recv_timeout(GLANCE) {
            Ok(written) => return written,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let fault = Fault::Panicked { message: "the evaluation ended without an answer".into() };
                return answer.end(Err(fault.into()));
            }
        }
        if let Some(file) = watch.parsing_longer_than(PARSING) {
            let fault = Fault::SlowToParse { seconds: PARSING.as_secs() };
            return answer.end(Err(EvalError { at: Some(At::file(file)), ..fault.into() }));
        }
    }
}
