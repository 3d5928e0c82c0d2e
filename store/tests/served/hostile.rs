//! Garbage, silence, and other users: they are cut off, and nobody else notices.

use std::{
    fs::{self, Permissions},
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use protocol::{evidence::Evidence, id::StatementId};

use super::{
    claim, client, serve,
    support::{
        Random,
        children::{home, output, say, start, wait_for},
        statement,
    },
};

/// A hello of version 1.
const HELLO: &[u8] = b"\x0f\0\0\0\x82\x6cassize store\x02";

#[test]
fn garbage_is_cut_off() {
    let home = tempfile::tempdir().unwrap();
    let (_store, service) = serve(home.path());
    let client = client(home.path());
    let socket = home.path().join("store.sock");
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let behind_hello = |bytes: &[u8]| [HELLO, bytes].concat();
    let mut random = Random::new();
    let noise: Vec<u8> = (0..100_000).map(|_| random.next() as u8).collect();
    let deep = vec![0x81; 1 << 20];
    let empty = [&[0x82, 8, 0x9a, 0, 0x10, 0, 0][..], &vec![0x40; 1 << 20]].concat();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\xff\xff\xff\xff".to_vec(),
        frame(b"\x82\x6cassize store\x18\x01"),
        noise.clone(),
        behind_hello(&noise),
        behind_hello(b"\xff\xff\xff\xff"),
        behind_hello(&frame(&[])),
        behind_hello(&frame(&noise)),
        behind_hello(&frame(&deep)),
        behind_hello(&frame(&empty)),
        // A request, and something behind it; one that is not in its shortest form; an unknown one.
        behind_hello(&frame(b"\x81\x03\x00")),
        behind_hello(&frame(b"\x81\x18\x03")),
        behind_hello(&frame(b"\x81\x18\x63")),
        // An array that says to be longer than memory.
        behind_hello(&frame(b"\x82\x08\x9b\xff\xff\xff\xff\xff\xff\xff\xff")),
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // It may be cut off before all of it is sent.
        let _ = stream.write_all(&garbage);
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        assert!(!end.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "still open");
        // At most a welcome.
        assert!(answer.len() <= 6, "{answer:x?}");
    }
    // A version that will be.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(&frame(b"\x82\x6cassize store\x18\x63")).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, frame(&[0x82, 1, 2]));
    // A place in no journal, and a statement that nobody signed, are refused like anything else.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(HELLO).unwrap();
    stream
        .write_all(&frame(&[&[0x82, 4, 0x81, 0x4c][..], &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 9]].concat()))
        .unwrap();
    let forged = statement(1, 0, StatementId::from_bytes([0; 32]), claim(1, 1));
    let mut forged = Evidence::Statement(forged).to_bytes();
    *forged.last_mut().unwrap() ^= 1;
    let item = [&[0x82, 10, 0x81, 0x58, forged.len() as u8][..], &forged].concat();
    assert!(forged.len() < 256);
    stream.write_all(&frame(&item)).unwrap();
    let mut answers = [0; 6];
    stream.read_exact(&mut answers).unwrap();
    for _ in 0..2 {
        let mut len = [0; 4];
        stream.read_exact(&mut len).unwrap();
        let mut answer = vec![0; u32::from_le_bytes(len) as usize];
        stream.read_exact(&mut answer).unwrap();
        // No more parts; kind 12, with three elements.
        assert_eq!(answer[..4], [0x82, 0xf4, 0x83, 12], "{}", answer.escape_ascii());
    }
    assert_eq!(client.attesters().unwrap(), []);
    // Half a frame, and nobody who reads: the others do not notice.
    let mut silent = UnixStream::connect(&socket).unwrap();
    silent.write_all(&behind_hello(b"\xff\0\0\0half")).unwrap();
    let mut deaf = UnixStream::connect(&socket).unwrap();
    deaf.set_nonblocking(true).unwrap();
    let _ = deaf.write_all(&behind_hello(&frame(b"\x81\x03").repeat(100_000)));
    assert_eq!(client.attesters().unwrap(), []);
    let started = Instant::now();
    drop(service);
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// As another user: tries the socket, and says what it was told.
#[test]
fn child_of_another_user() {
    let Some(home) = home() else { return };
    let Ok(mut stream) = UnixStream::connect(home.join("store.sock")) else { return say("closed", 0) };
    let _ = stream.write_all(HELLO);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    say("answered", answer.last().copied().unwrap_or(255).into());
}

#[test]
fn another_user() {
    let temp = tempfile::tempdir().unwrap();
    let binary = temp.path().join("test");
    fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    for path in [temp.path(), &binary] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let home = temp.path().join("home");
    let (_store, _service) = serve(&home);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&home.join("store.sock")), 0o600);
    let nobody = || {
        let mut command = Command::new(&binary);
        command.uid(65534).gid(65534);
        command
    };
    if !nobody().arg("--list").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return println!("not tested: `another_user` needs root");
    }
    let mut child = start(nobody(), "hostile::child_of_another_user", &home, 0);
    wait_for(&mut output(&mut child), "closed");
    child.wait().unwrap();
    // Even if the socket's mode were wrong.
    fs::set_permissions(home.join("store.sock"), Permissions::from_mode(0o666)).unwrap();
    let mut child = start(nobody(), "hostile::child_of_another_user", &home, 0);
    assert_eq!(wait_for(&mut output(&mut child), "answered"), 3);
    child.wait().unwrap();
}
