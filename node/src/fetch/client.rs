//! Running an ecosystem's own client, on a short leash.
//!
//! No shell, no stdin, an environment passed through (that is where proxies and registries are
//! configured), a time limit, bounded capture, and its own process group, which is killed as a
//! whole when the client is done, too slow or no longer wanted. Nothing of what a client brings is
//! executed: each caller sees to that with its arguments.

use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{atomic::AtomicBool, mpsc},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::{
    error::{FetchError, quote},
    partial::{TICK, check},
};

/// Bytes kept of each of stdout and stderr: the last ones.
const CAPTURE: usize = 1 << 20;

/// Characters of its output that an error quotes.
const QUOTED: usize = 400;

/// How long to wait for output after everything in the group was killed.
const DRAIN: Duration = Duration::from_secs(2);

/// A client and what to do with it.
pub(super) struct Client<'a> {
    /// What it is called in errors.
    pub(super) name: &'static str,
    /// Programs that are this client, with their first arguments; the first one found is run.
    pub(super) programs: &'a [&'a [&'a str]],
    /// Where it runs: a directory of its own.
    pub(super) dir: &'a Path,
    /// Set in addition to the environment of this process.
    pub(super) env: &'a [(&'a str, &'a str)],
    /// What it is to fetch, for errors.
    pub(super) location: &'a str,
    /// How long it may take.
    pub(super) timeout: Duration,
}

impl Client<'_> {
    /// Runs it, and returns its stdout if it succeeds.
    pub(super) fn run(&self, args: &[&str], cancel: &AtomicBool) -> Result<String, FetchError> {
        let mut child = self.spawn(args)?;
        let outputs = [drain(child.stdout.take()), drain(child.stderr.take())];
        let ended = self.wait(&mut child, cancel);
        let [stdout, stderr] = outputs.map(|o| o.recv_timeout(DRAIN).unwrap_or_default());
        let status = ended?;
        if !status.success() {
            let said = if stderr.trim().is_empty() { stdout } else { stderr };
            return Err(FetchError::ClientFailed { client: self.name, status, said: quote(&said, QUOTED) });
        }
        Ok(stdout)
    }

    fn spawn(&self, args: &[&str]) -> Result<Child, FetchError> {
        for program in self.programs {
            let mut command = Command::new(program[0]);
            command.args(&program[1..]).args(args).current_dir(self.dir).envs(self.env.iter().copied());
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
            match command.spawn() {
                Ok(child) => return Ok(child),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && self.dir.is_dir() => {}
                Err(source) => return Err(FetchError::Client { client: self.name, source }),
            }
        }
        Err(FetchError::MissingClient { client: self.name, location: self.location.to_owned() })
    }

    /// Waits for its end, and ends whatever it leaves behind.
    fn wait(&self, child: &mut Child, cancel: &AtomicBool) -> Result<ExitStatus, FetchError> {
        let failed = |source| FetchError::Client { client: self.name, source };
        let pid = Pid::from_child(child);
        let deadline = Instant::now() + self.timeout;
        let verdict = loop {
            // Not reaped yet, so that the number of its group cannot have become another's.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
            match waitid(WaitId::Pid(pid), options) {
                Ok(None) => {}
                Ok(Some(_)) => break Ok(()),
                Err(e) => break Err(failed(e.into())),
            }
            if let Err(cancelled) = check(cancel) {
                break Err(cancelled);
            }
            if Instant::now() >= deadline {
                break Err(FetchError::ClientTimeout { client: self.name, timeout: self.timeout });
            }
            std::thread::sleep(TICK);
        };
        // Fails if the group is gone, which is what is wanted.
        let _ = kill_process_group(pid, Signal::KILL);
        let status = child.wait().map_err(failed)?;
        verdict.map(|()| status)
    }
}

/// Reads to the end in a thread, keeping the last [`CAPTURE`] bytes.
fn drain(source: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
    // One message is all that comes.
    let (sender, receiver) = mpsc::sync_channel(1);
    let mut source = source.expect("piped");
    std::thread::spawn(move || {
        let (mut kept, mut chunk) = (Vec::new(), vec![0; 16 << 10]);
        while let Ok(n @ 1..) = source.read(&mut chunk) {
            kept.extend_from_slice(&chunk[..n]);
            if kept.len() > 2 * CAPTURE {
                kept.drain(..kept.len() - CAPTURE);
            }
        }
        let kept = &kept[kept.len().saturating_sub(CAPTURE)..];
        let _ = sender.send(String::from_utf8_lossy(kept).into_owned());
    });
    receiver
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn output_and_status() {
        assert_eq!(run("printf 'a\\033b'", 10).unwrap(), "a\u{1b}b");
        match run("printf 'no\\033[1m way\\n' >&2; exit 3", 10) {
            Err(FetchError::ClientFailed { client: "sh", status, said }) => {
                assert_eq!((status.code(), said.as_str()), (Some(3), "no [1m way"));
            }
            other => panic!("{other:?}"),
        }
        assert!(run("yes | head -c 10000000", 10).unwrap().len() <= CAPTURE);
        assert_eq!(run("read line; echo \"$line$ASSIZE_TEST\"", 10).unwrap(), "x\n"); // No stdin.
    }

    #[test]
    fn it_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let script = "(sleep 600; touch late) & sleep 600";
        let timed_out = client(dir.path(), 1).run(&["-c", script], &AtomicBool::new(false));
        assert!(matches!(timed_out, Err(FetchError::ClientTimeout { .. })), "{timed_out:?}");
        // One that ends and leaves a child with its stdout behind is not waited for.
        client(dir.path(), 60).run(&["-c", "sleep 600 & echo"], &AtomicBool::new(false)).unwrap();
        let cancel = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let running = scope.spawn(|| client(dir.path(), 60).run(&["-c", script], &cancel));
            std::thread::sleep(Duration::from_millis(200));
            cancel.store(true, Ordering::Relaxed);
            assert!(matches!(running.join().unwrap(), Err(FetchError::Cancelled)));
        });
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn missing() {
        let dir = tempfile::tempdir().unwrap();
        let client =
            Client { name: "npm", programs: &[&["assize-no-such-program"]], ..client(dir.path(), 1) };
        let error = client.run(&[], &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.to_string(), "npm not found: npm:a@1.0.0 is fetched with it");
        assert!(error.hint().unwrap().starts_with("install Node.js"));
    }

    fn run(script: &str, seconds: u64) -> Result<String, FetchError> {
        let dir = tempfile::tempdir().unwrap();
        client(dir.path(), seconds).run(&["-c", script], &AtomicBool::new(false))
    }

    fn client(dir: &Path, seconds: u64) -> Client<'_> {
        Client {
            name: "sh",
            programs: &[&["sh"]],
            dir,
            env: &[("ASSIZE_TEST", "x")],
            location: "npm:a@1.0.0",
            timeout: Duration::from_secs(seconds),
        }
    }
}
