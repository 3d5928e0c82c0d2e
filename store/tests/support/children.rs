//! Processes that use a store, and can be killed.
//!
//! A test starts its own binary again, with `STORE_HOME` set, to run one of its `child_…` functions,
//! which do nothing otherwise. A child says on stdout what the store has acknowledged.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

/// Where the store of this child is.
pub(crate) fn home() -> Option<PathBuf> {
    std::env::var_os("STORE_HOME").map(PathBuf::from)
}

/// The first of the numbers that are this child's.
pub(crate) fn first() -> u32 {
    std::env::var("STORE_FIRST").unwrap().parse().unwrap()
}

/// Says `what` about number `n`.
pub(crate) fn say(what: &str, n: u32) {
    let mut out = std::io::stdout().lock();
    // On a line of its own: the test harness begins one.
    writeln!(out, "\n{what} {n}").and_then(|()| out.flush()).unwrap();
}

/// Starts the function `child`, which is named with its module.
pub(crate) fn start(mut command: Command, child: &str, home: &Path, first: u32) -> Child {
    command
        .args(["--exact", child, "--nocapture", "--test-threads=1"])
        .env("STORE_HOME", home)
        .env("STORE_FIRST", first.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

pub(crate) fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

pub(crate) fn output(child: &mut Child) -> BufReader<ChildStdout> {
    BufReader::new(child.stdout.take().unwrap())
}

/// Waits until a child has said `what`, and about which number.
#[track_caller]
pub(crate) fn wait_for(out: &mut BufReader<ChildStdout>, what: &str) -> u32 {
    let mut line = String::new();
    while out.read_line(&mut line).unwrap() > 0 {
        if let Some(n) = line.trim().strip_prefix(what) {
            return n.trim().parse().unwrap();
        }
        line.clear();
    }
    panic!("the child did not say `{what}`")
}

/// The numbers that a child says `what` about until it ends, and all else that it says.
pub(crate) fn said(out: BufReader<ChildStdout>, what: &str) -> (Vec<u32>, String) {
    let (mut numbers, mut rest) = (Vec::new(), String::new());
    for line in out.lines() {
        let line = line.unwrap();
        match line.strip_prefix(what) {
            Some(n) => numbers.push(n.trim().parse().unwrap()),
            None => rest += &line,
        }
    }
    (numbers, rest)
}
