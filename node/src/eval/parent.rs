//! The parent's side of an evaluation: start the worker, listen, and end it in time.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

use super::{
    EvalError, EvalLimits, Evaluation, Fault, Request,
    error::clean,
    wire,
    worker::{DOING, ORDER_BYTES, Order, TRACE},
};

/// Lines of `std.trace` that are passed on.
const TRACE_LINES: usize = 10_000;

/// Longest line of stderr that is listened to, in bytes.
const LINE_BYTES: u64 = 64 << 10;

/// Lines that wait to be passed on; the worker waits when there are more.
const WAITING: usize = 256;

/// How the C library of GNU allocates in the worker; another one knows nothing of these.
///
/// The evaluator allocates small pieces by the million, and then the process ends. By default the heap of
/// a second thread grows by a page with each system call, and 7 free pieces of a size are kept at hand:
/// without these, allocating takes a third of an evaluation. One heap for all threads, 16 MiB at a
/// time; every free piece at hand; and huge pages. What is allocated counts for the limits as ever.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_TOP_PAD_", "16777216"),
    ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=60000:glibc.malloc.hugetlb=1"),
];

const SIGABRT: i32 = 6;
const SIGBUS: i32 = 7;
const SIGKILL: i32 = 9;
const SIGSEGV: i32 = 11;
const SIGXCPU: i32 = 24;

/// Evaluates in a worker process.
///
/// `exe` is the program that becomes a worker when it is called with `worker evaluate`.
/// `on_trace` gets what `std.trace` is given, a line at a time, free of control characters. Blocks
/// until the worker has answered or is killed: at most `limits.time` and a little.
///
/// # Errors
///
/// [`EvalError`]. Whatever the text of the project is, it leads to an error, not to a crash of this
/// process; and a worker that was killed leads to the variant that says of what.
pub fn evaluate(
    exe: &Path,
    request: &Request,
    limits: &EvalLimits,
    mut on_trace: impl FnMut(&str),
) -> Result<Evaluation, EvalError> {
    let end = Instant::now() + limits.time;
    let mut child = start(exe, request, limits)?;
    let mut heard = listen(&mut child, limits, end, &mut on_trace);
    // A worker that has answered is about to end; any other is of no more use.
    if !heard.complete() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| broken(&e))?;
    let complete = heard.complete() && status.success();
    match heard.answer.take() {
        Some(answer) if complete => answer,
        _ => Err(heard.fault(status, limits).into()),
    }
}

fn broken(error: &std::io::Error) -> EvalError {
    Fault::Worker { why: error.to_string() }.into()
}

/// Starts the worker and gives it its order.
fn start(exe: &Path, request: &Request, limits: &EvalLimits) -> Result<Child, EvalError> {
    let order = Order {
        request: request.clone(),
        memory: limits.memory,
        cpu_seconds: limits.time.as_secs().max(1) + 1,
        answer_bytes: limits.answer,
    };
    let order = serde_json::to_vec(&order).map_err(|e| Fault::Worker { why: e.to_string() })?;
    if order.len() as u64 > ORDER_BYTES {
        return Err(Fault::Worker { why: "the request is too long".into() }.into());
    }
    let mut child = Command::new(exe)
        .args(["worker", "evaluate"])
        .env_clear()
        .envs(ALLOCATOR)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| broken(&e))?;
    if let Some(mut stdin) = child.stdin.take() {
        // On its own thread, because a worker that does not read must not stop us. If writing
        // fails, the worker has died, and how it died says more.
        thread::spawn(move || {
            let _ = stdin.write_all(&order);
        });
    }
    Ok(child)
}

enum Event {
    Line(String),
    Answer(Result<Evaluation, EvalError>),
    /// One of the two pipes is closed.
    Closed,
}

/// What came from a worker.
#[derive(Default)]
struct Heard {
    answer: Option<Result<Evaluation, EvalError>>,
    closed: usize,
    /// What it said last that it does.
    doing: Option<String>,
    /// What the runtime of Rust said of its own accord.
    runtime: String,
    late: bool,
}

/// Listens until both pipes are closed or time is up.
fn listen(child: &mut Child, limits: &EvalLimits, end: Instant, on_trace: &mut dyn FnMut(&str)) -> Heard {
    let (send, events) = mpsc::sync_channel(WAITING);
    if let Some(stdout) = child.stdout.take() {
        let (send, limit) = (send.clone(), limits.answer.saturating_add(1 << 20));
        thread::spawn(move || {
            // The listener may have gone, at the end of its time.
            let _ = send.send(Event::Answer(wire::read(stdout.take(limit))));
            let _ = send.send(Event::Closed);
        });
    }
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            while let Some(line) = line(&mut stderr) {
                if send.send(Event::Line(line)).is_err() {
                    return;
                }
            }
            let _ = send.send(Event::Closed);
        });
    }
    let mut heard = Heard::default();
    let mut traces = 0;
    while !heard.complete() {
        match events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Event::Line(line)) => heard.line(&line, &mut traces, on_trace),
            Ok(Event::Answer(answer)) => heard.answer = Some(answer),
            Ok(Event::Closed) => heard.closed += 1,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                heard.late = true;
                return heard;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return heard,
        }
    }
    heard
}

/// The next line, cut short if it is too long; none at the end.
fn line(from: &mut impl BufRead) -> Option<String> {
    let mut line = Vec::new();
    let read = from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line);
    match read {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned()),
    }
}

impl Heard {
    fn complete(&self) -> bool {
        self.closed == 2
    }

    fn line(&mut self, line: &str, traces: &mut usize, on_trace: &mut dyn FnMut(&str)) {
        if let Some(doing) = line.strip_prefix(DOING) {
            self.doing = Some(clean(doing)).filter(|d| !d.is_empty());
        } else if let Some(text) = line.strip_prefix(TRACE) {
            *traces += 1;
            match (*traces).cmp(&TRACE_LINES) {
                std::cmp::Ordering::Less => on_trace(&clean(text)),
                std::cmp::Ordering::Equal => on_trace("further output of std.trace is not shown"),
                std::cmp::Ordering::Greater => {}
            }
        } else if self.runtime.len() < 4096 {
            self.runtime.push_str(&clean(line));
            self.runtime.push('\n');
        }
    }

    /// Why there is no answer.
    fn fault(&self, status: ExitStatus, limits: &EvalLimits) -> Fault {
        let doing = self.doing.clone();
        let seconds = limits.time.as_secs();
        let bytes = limits.memory;
        match status.signal() {
            _ if self.late => Fault::TimedOut { seconds, doing },
            Some(SIGXCPU) => Fault::TimedOut { seconds, doing },
            // The limit on processor time, in earnest; or the kernel, out of memory.
            Some(SIGKILL) => Fault::OutOfMemory { bytes, doing },
            Some(SIGABRT) if self.runtime.contains("memory allocation of") => {
                Fault::OutOfMemory { bytes, doing }
            }
            Some(SIGABRT) if self.runtime.contains("has overflowed its stack") => {
                Fault::StackOverflow { doing }
            }
            Some(SIGSEGV | SIGBUS) => Fault::StackOverflow { doing },
            Some(signal) => Fault::Crashed { signal, doing },
            None => Fault::Answer { why: format!("it has none, and ended with {status}") },
        }
    }
}
