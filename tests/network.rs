//! Programs that are granted a network, and programs that are not: servers in WASI preview 1, met
//! by real clients.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{Sandbox, said};

/// How long a test waits for what never takes long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the servers below have in common. A step that goes wrong ends the program with the step's
/// number; memory from 1024 is for data, below are the vectors and what calls write.
const PRELUDE: &str = r#"
  (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get" (func $environ_sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $status (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_fdstat_set_flags" (func $set_flags (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_filestat_get" (func $attributes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_dir_name" (func $prename (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_renumber" (func $renumber (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_tell" (func $tell (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_open"
    (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_rename"
    (func $rename (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_recv"
    (func $receive (param i32 i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_send" (func $send (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sock_shutdown" (func $shutdown (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 900) "readyfile")

  (func $is (param $step i32) (param $got i32) (param $wanted i32)
    (if (i32.ne (local.get $got) (local.get $wanted)) (then (call $exit (local.get $step)))))

  ;; The vector at 0: so many bytes of data.
  (func $vector (param $len i32)
    (i32.store (i32.const 0) (i32.const 1024))
    (i32.store (i32.const 4) (local.get $len)))

  ;; The next connection of a listener.
  (func $connection (param $listener i32) (result i32)
    (call $is (i32.const 100) (call $accept (local.get $listener) (i32.const 0) (i32.const 12)) (i32.const 0))
    (i32.load (i32.const 12)))

  ;; Reads data and gives its length.
  (func $got (param $fd i32) (result i32)
    (call $vector (i32.const 4096))
    (call $is (i32.const 101)
      (call $read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (i32.const 0))
    (i32.load (i32.const 8)))

  ;; Writes data.
  (func $put (param $fd i32) (param $len i32)
    (call $vector (local.get $len))
    (call $is (i32.const 102)
      (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)) (i32.const 0))
    (call $is (i32.const 103) (i32.load (i32.const 8)) (local.get $len)))

  ;; Tells the test that something is done.
  (func $ready
    (memory.copy (i32.const 1024) (i32.const 900) (i32.const 5))
    (call $put (i32.const 1) (i32.const 5)))

  ;; The subscription at a place: of a descriptor, or of the time in so many milliseconds. Its
  ;; userdata is a hundred and the place.
  (func $subscribe (param $n i32) (param $kind i32) (param $fd i32) (param $ms i64)
    (local $at i32)
    (local.set $at (i32.add (i32.const 64) (i32.mul (local.get $n) (i32.const 48))))
    (memory.fill (local.get $at) (i32.const 0) (i32.const 48))
    (i64.store (local.get $at) (i64.extend_i32_u (i32.add (i32.const 100) (local.get $n))))
    (i32.store8 offset=8 (local.get $at) (local.get $kind))
    (if (local.get $kind)
      (then (i32.store offset=16 (local.get $at) (local.get $fd)))
      (else
        (i32.store offset=16 (local.get $at) (i32.const 1))
        (i64.store offset=24 (local.get $at) (i64.mul (local.get $ms) (i64.const 1000000))))))

  ;; Waits for one of so many subscriptions, and gives how many happened.
  (func $wait (param $count i32) (result i32)
    (call $is (i32.const 104)
      (call $poll (i32.const 64) (i32.const 512) (local.get $count) (i32.const 8)) (i32.const 0))
    (i32.load (i32.const 8)))

  ;; The place of the subscription of an event, its error and its number of bytes.
  (func $event (param $n i32) (result i32)
    (i32.sub (i32.load (i32.add (i32.const 512) (i32.mul (local.get $n) (i32.const 32)))) (i32.const 100)))
  (func $event_errno (param $n i32) (result i32)
    (i32.load16_u offset=8 (i32.add (i32.const 512) (i32.mul (local.get $n) (i32.const 32)))))
  (func $event_bytes (param $n i32) (result i32)
    (i32.load offset=16 (i32.add (i32.const 512) (i32.mul (local.get $n) (i32.const 32)))))
  (func $event_flags (param $n i32) (result i32)
    (i32.load16_u offset=24 (i32.add (i32.const 512) (i32.mul (local.get $n) (i32.const 32)))))
"#;

/// A project whose `server` does that.
fn server(start: &str) -> Sandbox {
    let module = format!("(module {PRELUDE} (func (export \"_start\") {start}))");
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_assize"));
    sandbox.program("server", &wat::parse_str(module).expect("the test's own module"));
    sandbox
}

/// A program that runs and listens.
struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: BufReader<ChildStderr>,
    addresses: Vec<SocketAddr>,
}

impl Running {
    /// Runs `server` with so many listeners, and waits until it is said where.
    fn start(sandbox: &Sandbox, listeners: usize, args: &[&str]) -> Self {
        let net = ["--net", "127.0.0.1:0"].repeat(listeners);
        let args = ["run", "server"].iter().chain(&net).chain(args);
        let mut child = sandbox.command(args).stdin(Stdio::piped()).spawn().expect("assize starts");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("a pipe");
        let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (mut addresses, mut said) = (vec![], String::new());
        while addresses.len() < listeners {
            let mut line = String::new();
            assert_ne!(stderr.read_line(&mut line).expect("text"), 0, "it does not listen:\n{said}");
            if let Some(address) = line.trim().strip_prefix("listening on ") {
                addresses.push(address.parse().expect("an address"));
            }
            said.push_str(&line);
        }
        Self { child, stdin, stdout, stderr, addresses }
    }

    /// Waits until the program says that it is ready.
    fn ready(&mut self) {
        let mut ready = [0; 5];
        self.stdout.read_exact(&mut ready).expect("it says that it is ready");
        assert_eq!(&ready, b"ready");
    }

    fn connect(&self, listener: usize) -> TcpStream {
        let client = TcpStream::connect(self.addresses[listener]).expect("somebody listens");
        client.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        client
    }

    /// Waits for its end: its exit code, and the rest of its stderr.
    #[track_caller]
    fn end(mut self) -> (i32, String) {
        let begun = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a process") {
                Some(status) => break status,
                None if begun.elapsed() > PATIENCE => panic!("it does not end"),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("text");
        (status.code().unwrap_or(-1), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn received(client: &mut TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).expect("an answer and its end");
    text
}

#[test]
fn a_server_answers() {
    let sandbox = server(
        "(local $c i32)
         (local.set $c (call $connection (i32.const 3)))
         (call $is (i32.const 1) (local.get $c) (i32.const 4))
         (call $put (local.get $c) (call $got (local.get $c)))
         (call $is (i32.const 2) (call $shutdown (local.get $c) (i32.const 0)) (i32.const 28))
         (call $is (i32.const 3) (call $shutdown (local.get $c) (i32.const 4)) (i32.const 28))
         (call $is (i32.const 4) (call $shutdown (local.get $c) (i32.const 2)) (i32.const 0))
         ;; What cannot be sent is an error, and not the end.
         (call $vector (i32.const 1))
         (call $is (i32.const 5)
           (call $send (local.get $c) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 8)) (i32.const 64))
         (call $is (i32.const 6)
           (call $send (local.get $c) (i32.const 0) (i32.const 1) (i32.const 1) (i32.const 8)) (i32.const 28))
         ;; The client ends its side; then ours is read to its end.
         (call $is (i32.const 7) (call $got (local.get $c)) (i32.const 0))
         (call $is (i32.const 8) (call $close (local.get $c)) (i32.const 0))
         (call $is (i32.const 9) (call $close (local.get $c)) (i32.const 8))
         ;; Its number is free again.
         (call $is (i32.const 10) (call $connection (i32.const 3)) (i32.const 4))",
    );
    let running = Running::start(&sandbox, 1, &[]);
    let mut client = running.connect(0);
    client.write_all(b"hello").expect("it reads");
    assert_eq!(received(&mut client), "hello");
    client.shutdown(Shutdown::Write).expect("the connection is open");
    drop(running.connect(0));
    assert_eq!(running.end(), (0, String::new()));
}

#[test]
fn a_peer_that_is_gone_is_an_error_and_no_signal() {
    let sandbox = server(
        "(local $c i32)
         (local.set $c (call $connection (i32.const 3)))
         (call $ready)
         (call $vector (i32.const 4096))
         (loop $more
           (br_if $more
             (i32.eqz (call $send (local.get $c) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 8)))))
         (call $is (i32.const 1)
           (call $send (local.get $c) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 8)) (i32.const 64))",
    );
    let mut running = Running::start(&sandbox, 1, &[]);
    let client = running.connect(0);
    running.ready();
    drop(client);
    assert_eq!(running.end().0, 0);
}

#[test]
fn bytes_are_looked_at_and_waited_for() {
    let sandbox = server(
        "(local $c i32)
         (local.set $c (call $connection (i32.const 3)))
         ;; A look at what is there leaves it there.
         (call $vector (i32.const 4096))
         (call $is (i32.const 1)
           (call $receive (local.get $c) (i32.const 0) (i32.const 1) (i32.const 1) (i32.const 8) (i32.const 10))
           (i32.const 0))
         (call $is (i32.const 2) (i32.load16_u (i32.const 8)) (i32.const 2))
         (call $put (local.get $c) (i32.const 2))
         ;; All of two buffers is waited for: 2 bytes are there, 3 come later.
         (i32.store (i32.const 16) (i32.const 1040)) (i32.store (i32.const 20) (i32.const 4))
         (i32.store (i32.const 24) (i32.const 1044)) (i32.store (i32.const 28) (i32.const 1))
         (i32.store (i32.const 32) (i32.const -1))
         (call $is (i32.const 3)
           (call $receive (local.get $c) (i32.const 16) (i32.const 2) (i32.const 2) (i32.const 8) (i32.const 32))
           (i32.const 0))
         (call $is (i32.const 4) (i32.load (i32.const 8)) (i32.const 5))
         (call $is (i32.const 5) (i32.load16_u (i32.const 32)) (i32.const 0))
         (memory.copy (i32.const 1024) (i32.const 1040) (i32.const 5))
         (call $put (local.get $c) (i32.const 5))
         (call $is (i32.const 6)
           (call $receive (local.get $c) (i32.const 0) (i32.const 1) (i32.const 4) (i32.const 8) (i32.const 32))
           (i32.const 28))
         ;; Buffers that leave the memory, and more of them than there may be.
         (i32.store (i32.const 16) (i32.const 65535))
         (call $is (i32.const 7)
           (call $receive (local.get $c) (i32.const 16) (i32.const 2) (i32.const 0) (i32.const 8) (i32.const 32))
           (i32.const 21))
         (call $is (i32.const 8)
           (call $send (local.get $c) (i32.const 16) (i32.const 1025) (i32.const 0) (i32.const 8)) (i32.const 28))",
    );
    let running = Running::start(&sandbox, 1, &[]);
    let mut client = running.connect(0);
    client.write_all(b"ab").expect("it reads");
    let mut seen = [0; 2];
    client.read_exact(&mut seen).expect("it answers");
    assert_eq!(&seen, b"ab");
    client.write_all(b"cde").expect("it reads");
    assert_eq!(received(&mut client), "abcde");
    assert_eq!(running.end().0, 0);
}

#[test]
fn a_listener_that_does_not_block_is_waited_for() {
    let sandbox = server(
        "(local $c i32)
         (call $is (i32.const 1) (call $set_flags (i32.const 3) (i32.const 5)) (i32.const 28))
         (call $is (i32.const 2) (call $set_flags (i32.const 3) (i32.const 4)) (i32.const 0))
         (call $is (i32.const 3) (call $accept (i32.const 3) (i32.const 0) (i32.const 12)) (i32.const 6))
         ;; A socket of a stream, that does not block.
         (call $is (i32.const 4) (call $status (i32.const 3) (i32.const 1024)) (i32.const 0))
         (call $is (i32.const 5) (i32.load (i32.const 1024)) (i32.const 0x40006))
         (call $is (i32.const 6) (call $attributes (i32.const 3) (i32.const 1024)) (i32.const 0))
         (call $is (i32.const 7) (i32.load8_u (i32.const 1040)) (i32.const 6))
         ;; Nobody comes.
         (call $subscribe (i32.const 0) (i32.const 1) (i32.const 3) (i64.const 0))
         (call $subscribe (i32.const 1) (i32.const 0) (i32.const 0) (i64.const 30))
         (call $is (i32.const 8) (call $wait (i32.const 2)) (i32.const 1))
         (call $is (i32.const 9) (call $event (i32.const 0)) (i32.const 1))
         (call $ready)
         ;; Somebody comes.
         (call $subscribe (i32.const 1) (i32.const 0) (i32.const 0) (i64.const 100000000))
         (call $is (i32.const 10) (call $wait (i32.const 2)) (i32.const 1))
         (call $is (i32.const 11) (call $event (i32.const 0)) (i32.const 0))
         (call $is (i32.const 12) (call $accept (i32.const 3) (i32.const 4) (i32.const 12)) (i32.const 0))
         (local.set $c (i32.load (i32.const 12)))
         ;; There is nothing to read yet, but room to write.
         (call $vector (i32.const 4096))
         (call $is (i32.const 13)
           (call $read (local.get $c) (i32.const 0) (i32.const 1) (i32.const 8)) (i32.const 6))
         (call $subscribe (i32.const 0) (i32.const 1) (local.get $c) (i64.const 0))
         (call $subscribe (i32.const 1) (i32.const 2) (local.get $c) (i64.const 0))
         (call $is (i32.const 14) (call $wait (i32.const 2)) (i32.const 1))
         (call $is (i32.const 15) (call $event (i32.const 0)) (i32.const 1))
         (call $ready)
         ;; Five bytes come, and then the end.
         (call $is (i32.const 16) (call $wait (i32.const 1)) (i32.const 1))
         (call $is (i32.const 17) (call $event_bytes (i32.const 0)) (i32.const 5))
         (call $is (i32.const 18) (call $event_flags (i32.const 0)) (i32.const 0))
         (call $is (i32.const 19) (call $got (local.get $c)) (i32.const 5))
         (call $ready)
         (call $is (i32.const 20) (call $wait (i32.const 1)) (i32.const 1))
         (call $is (i32.const 21) (call $event_flags (i32.const 0)) (i32.const 1))
         ;; What is not open is an event too, and is not waited for.
         (call $subscribe (i32.const 0) (i32.const 1) (i32.const 3) (i64.const 0))
         (call $subscribe (i32.const 1) (i32.const 1) (i32.const 77) (i64.const 0))
         (call $is (i32.const 22) (call $wait (i32.const 2)) (i32.const 1))
         (call $is (i32.const 23) (call $event_errno (i32.const 0)) (i32.const 8))",
    );
    let mut running = Running::start(&sandbox, 1, &[]);
    running.ready();
    let mut client = running.connect(0);
    running.ready();
    client.write_all(b"hello").expect("it reads");
    running.ready();
    drop(client);
    assert_eq!(running.end(), (0, String::new()));
}

#[test]
fn stdin_and_sockets_are_waited_for_together() {
    let sandbox = server(
        "(local $c i32) (local $count i32)
         (call $subscribe (i32.const 0) (i32.const 1) (i32.const 0) (i64.const 0))
         (call $subscribe (i32.const 1) (i32.const 1) (i32.const 3) (i64.const 0))
         (call $subscribe (i32.const 2) (i32.const 0) (i32.const 0) (i64.const 30))
         ;; The time comes first, then a client, then a line.
         (call $is (i32.const 1) (call $wait (i32.const 3)) (i32.const 1))
         (call $is (i32.const 2) (call $event (i32.const 0)) (i32.const 2))
         (call $ready)
         (call $is (i32.const 3) (call $wait (i32.const 2)) (i32.const 1))
         (call $is (i32.const 4) (call $event (i32.const 0)) (i32.const 1))
         (local.set $c (call $connection (i32.const 3)))
         (call $ready)
         (call $subscribe (i32.const 1) (i32.const 1) (local.get $c) (i64.const 0))
         (call $subscribe (i32.const 2) (i32.const 0) (i32.const 0) (i64.const 100000000))
         (call $is (i32.const 5) (call $wait (i32.const 3)) (i32.const 1))
         (call $is (i32.const 6) (call $event (i32.const 0)) (i32.const 0))
         (call $ready)
         ;; Neither hides the other.
         (loop $more
           (local.set $count (call $wait (i32.const 3)))
           (br_if $more (i32.ne (local.get $count) (i32.const 2))))
         (call $is (i32.const 7) (call $got (i32.const 0)) (i32.const 4))
         (call $put (local.get $c) (call $got (local.get $c)))",
    );
    let mut running = Running::start(&sandbox, 1, &[]);
    running.ready();
    let mut client = running.connect(0);
    running.ready();
    let mut stdin = running.stdin.take().expect("a pipe");
    stdin.write_all(b"line").expect("it reads");
    running.ready();
    client.write_all(b"hello").expect("it reads");
    assert_eq!(received(&mut client), "hello");
    assert_eq!(running.end().0, 0);
}

#[test]
fn listeners_come_first_and_directories_are_found_behind_them() {
    let sandbox = server(
        "(local $c i32)
         ;; Preopened, and no directories; the directory is behind them, and is the last.
         (call $is (i32.const 1) (call $prestat (i32.const 3) (i32.const 1024)) (i32.const 0))
         (call $is (i32.const 2) (i32.load8_u (i32.const 1024)) (i32.const 1))
         (call $is (i32.const 3) (i32.load (i32.const 1028)) (i32.const 0))
         (call $is (i32.const 4) (call $prename (i32.const 3) (i32.const 1024) (i32.const 0)) (i32.const 0))
         (call $is (i32.const 5) (call $prestat (i32.const 4) (i32.const 1024)) (i32.const 0))
         (call $is (i32.const 6) (i32.load8_u (i32.const 1024)) (i32.const 1))
         (call $is (i32.const 7) (call $prestat (i32.const 5) (i32.const 1024)) (i32.const 0))
         (call $is (i32.const 8) (i32.load8_u (i32.const 1024)) (i32.const 0))
         (call $is (i32.const 9) (i32.load (i32.const 1028)) (i32.const 4))
         (call $is (i32.const 10) (call $prestat (i32.const 6) (i32.const 1024)) (i32.const 8))
         ;; A file and a connection, each with the lowest number that is free.
         (call $is (i32.const 11)
           (call $open (i32.const 5) (i32.const 0) (i32.const 905) (i32.const 4) (i32.const 0)
             (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 12)) (i32.const 0))
         (call $is (i32.const 12) (i32.load (i32.const 12)) (i32.const 6))
         (local.set $c (call $connection (i32.const 4)))
         (call $is (i32.const 13) (local.get $c) (i32.const 7))
         (call $is (i32.const 14) (call $prestat (local.get $c) (i32.const 1024)) (i32.const 8))
         (call $put (local.get $c) (call $got (i32.const 6)))
         ;; A socket is no file and no directory, and a file is no socket.
         (call $is (i32.const 15)
           (call $open (i32.const 3) (i32.const 0) (i32.const 905) (i32.const 4) (i32.const 0)
             (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 12)) (i32.const 54))
         (call $is (i32.const 16)
           (call $rename (i32.const 5) (i32.const 905) (i32.const 4) (i32.const 3) (i32.const 905) (i32.const 4))
           (i32.const 54))
         (call $is (i32.const 17) (call $tell (local.get $c) (i32.const 1024)) (i32.const 70))
         (call $is (i32.const 18) (call $accept (i32.const 6) (i32.const 0) (i32.const 12)) (i32.const 57))
         (call $is (i32.const 19) (call $shutdown (i32.const 6) (i32.const 1)) (i32.const 57))
         (call $is (i32.const 20) (call $accept (i32.const 77) (i32.const 0) (i32.const 12)) (i32.const 8))
         (call $is (i32.const 21) (call $accept (i32.const 3) (i32.const 1) (i32.const 12)) (i32.const 28))
         (call $is (i32.const 22) (call $accept (i32.const 3) (i32.const 0) (i32.const 65535)) (i32.const 21))
         ;; The connection takes the file's number, and the file the first listener's.
         (call $is (i32.const 23) (call $tell (i32.const 6) (i32.const 1024)) (i32.const 0))
         (call $is (i32.const 24) (call $renumber (i32.const 6) (i32.const 3)) (i32.const 0))
         (call $is (i32.const 25) (call $renumber (i32.const 7) (i32.const 6)) (i32.const 8))
         (call $is (i32.const 26) (call $renumber (i32.const 7) (i32.const 7)) (i32.const 0))
         (call $is (i32.const 27) (call $got (i32.const 3)) (i32.const 0))
         (call $is (i32.const 28) (call $renumber (i32.const 7) (i32.const 3)) (i32.const 0))
         (i32.store8 (i32.const 1024) (i32.const 33))
         (call $put (i32.const 3) (i32.const 1))
         ;; The environment, for the test to see.
         (call $is (i32.const 29) (call $environ_sizes (i32.const 8) (i32.const 12)) (i32.const 0))
         (call $is (i32.const 30) (call $environ (i32.const 2048) (i32.const 1024)) (i32.const 0))
         (call $put (i32.const 1) (i32.load (i32.const 12)))",
    );
    sandbox.write("data/file", "granted");
    let mut running = Running::start(&sandbox, 2, &["--dir", "data=work", "--env", "A=1"]);
    let mut client = running.connect(1);
    assert_eq!(received(&mut client), "granted!");
    let mut environment = String::new();
    running.stdout.read_to_string(&mut environment).expect("text");
    let [one, two] = running.addresses[..] else { panic!("two listeners") };
    let names = format!("LISTEN_FDNAMES=tcp-{}:tcp-{}", one.port(), two.port());
    assert_eq!(environment.split_terminator('\0').collect::<Vec<_>>(), ["A=1", "LISTEN_FDS=2", &names]);
    assert_eq!(running.end(), (0, String::new()));
}

#[test]
fn what_was_not_granted_is_refused_and_said() {
    // The errors are those without any network, and the hint is given once.
    let sandbox = server(
        "(call $is (i32.const 1) (call $environ_sizes (i32.const 8) (i32.const 12)) (i32.const 0))
         (call $is (i32.const 2) (i32.load (i32.const 8)) (i32.const 0))
         (call $is (i32.const 3) (call $accept (i32.const 3) (i32.const 0) (i32.const 12)) (i32.const 8))
         (call $is (i32.const 4) (call $accept (i32.const 0) (i32.const 0) (i32.const 12)) (i32.const 57))
         (call $is (i32.const 5) (call $shutdown (i32.const 0) (i32.const 1)) (i32.const 57))",
    );
    sandbox.ok(["build", "server"]);
    let refused = said(sandbox.command(["run", "server"]));
    assert_eq!(refused.code, 0, "{}", refused.err);
    assert_eq!(refused.err.matches("not granted").count(), 1, "{}", refused.err);
    assert!(refused.err.contains("hint: ") && refused.err.contains("--net"), "{}", refused.err);
    let quiet = said(sandbox.command(["run", "-q", "server"]));
    assert_eq!((quiet.code, quiet.err.as_str()), (0, ""));
    // Who does not ask is not told.
    let sandbox = server("(call $ready)");
    sandbox.ok(["build", "server"]);
    let silent = said(sandbox.command(["run", "server"]));
    assert!(!silent.err.contains("--net"), "{}", silent.err);
}

#[test]
fn addresses_that_cannot_be_had_are_errors() {
    let sandbox = server("");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).expect("an address");
    let said = sandbox.fails(&["run", "server", "--net", &taken.1], 1, &[&taken.1, "because ", "hint: "]);
    assert!(said.err.contains("cannot listen on"), "{}", said.err);
    // An address of nobody's machine (RFC 5737).
    sandbox.fails(&["run", "server", "--net", "192.0.2.1:0"], 1, &["192.0.2.1:0", "because ", "hint: "]);
    for (wrong, why) in [("localhost:80", "number"), ("80", "number"), ("udp:127.0.0.1:80", "UDP")] {
        sandbox.fails(&["run", "server", "--net", wrong], 2, &[wrong, why]);
    }
}

#[test]
fn readers_of_json_learn_the_port_and_variables_can_be_replaced() {
    let sandbox = server(
        "(call $is (i32.const 1) (call $environ_sizes (i32.const 8) (i32.const 12)) (i32.const 0))
         (call $is (i32.const 2) (call $environ (i32.const 2048) (i32.const 1024)) (i32.const 0))
         (call $put (i32.const 1) (i32.load (i32.const 12)))",
    );
    let net = ["--net", "tcp:127.0.0.1:0", "--net", "127.0.0.1:0"];
    let env = ["--env", "LISTEN_FDS=mine", "--env", "LISTEN_FDNAMES=too"];
    let said = said(sandbox.command(["run", "server", "--json"].iter().chain(&net).chain(&env)));
    assert_eq!((said.code, said.out.as_str()), (0, "LISTEN_FDS=mine\0LISTEN_FDNAMES=too\0"), "{}", said.err);
    let lines = said.err.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let listening: Vec<_> = lines.filter(|line| line["kind"] == "listening").collect();
    for (line, descriptor) in listening.iter().zip([3, 4]) {
        let address: SocketAddr = line["data"]["address"].as_str().unwrap_or("").parse().expect("an address");
        assert_ne!(address.port(), 0);
        assert_eq!(line["data"]["descriptor"], descriptor);
    }
    assert_eq!(listening.len(), 2, "{}", said.err);
}

#[test]
fn a_server_ends_with_ctrl_c() {
    let sandbox = server("(call $ready) (drop (call $connection (i32.const 3)))");
    let mut running = Running::start(&sandbox, 1, &[]);
    running.ready();
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    assert_eq!(running.end().0, 130);
}
