//! Packing gives what `nix-store --dump` gives, and unpacking undoes it.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::Path,
    process::Command,
};

use protocol::{glob::Glob, id::NarHash, nar::Index};
use store::{HashingWriter, PackError, UnpackError, pack, unpack};

fn packed(root: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(root, &[], &mut bytes).unwrap();
    bytes
}

/// What Nix makes of the same tree.
fn dumped_by_nix(root: &Path) -> Vec<u8> {
    let run = Command::new("nix-store").arg("--dump").arg(root).env("NIX_STATE_DIR", "/nonexistent").output();
    match run {
        Ok(out) if out.status.success() => out.stdout,
        Ok(out) => panic!("nix-store --dump failed: {}", String::from_utf8_lossy(&out.stderr)),
        Err(e) => panic!("nix-store not found: install nix-bin ({e})"),
    }
}

fn executable(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Whatever a file system can hold and an archive too.
fn odd_tree(root: &Path) {
    let names: [&[u8]; 14] = [
        b"a",
        b"A",
        b"ab",
        b"a b",
        b"a-",
        b"a.b",
        b"-rf",
        b"...",
        b".hidden",
        "\u{fc}nic\u{f6}de".as_bytes(),
        "\u{65e5}\u{672c}".as_bytes(),
        b"\xff\x01 \n",
        b"\x7f\xc3",
        &[b'n'; 255],
    ];
    fs::create_dir(root).unwrap();
    for (n, name) in names.iter().enumerate() {
        let path = root.join(OsStr::from_bytes(name));
        // Every padding, and none.
        fs::write(&path, vec![n as u8; n * 3]).unwrap();
    }
    fs::write(root.join("empty"), b"").unwrap();
    fs::create_dir(root.join("empty dir")).unwrap();
    for mode in [0o755, 0o744, 0o645, 0o611, 0o600, 0o444, 0o4755] {
        let path = root.join(format!("mode {mode:o}"));
        fs::write(&path, b"#!/bin/sh\n").unwrap();
        executable(&path, mode);
    }
    for (name, target) in [
        ("absolute", "/etc/passwd"),
        ("dangling", "nowhere/at/all"),
        ("up", "../.."),
        ("loop", "loop"),
        ("dir", "empty dir"),
    ] {
        symlink(target, root.join(format!("link {name}"))).unwrap();
    }
    symlink(OsStr::from_bytes(b"\xff\xfe"), root.join("link odd")).unwrap();
    symlink(OsStr::from_bytes(&[b'x'; 4095]), root.join("link long")).unwrap();
    // A directory whose contents sort differently from its paths: `d/x` and `d.x`.
    fs::create_dir(root.join("d")).unwrap();
    fs::write(root.join("d/x"), b"1").unwrap();
    fs::write(root.join("d.x"), b"2").unwrap();
    let mut deep = root.to_owned();
    for _ in 0..60 {
        deep.push("deep");
        fs::create_dir(&deep).unwrap();
    }
    fs::write(deep.join("bottom"), vec![7; 300_000]).unwrap();
}

#[test]
fn as_nix_does() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("tree");
    odd_tree(&root);
    assert!(packed(&root) == dumped_by_nix(&root));
    for single in ["empty", "mode 755", "mode 600", "link absolute", "link loop", "empty dir"] {
        let path = root.join(single);
        assert!(packed(&path) == dumped_by_nix(&path), "{single}");
    }
}

#[test]
fn unpacking_undoes_packing() {
    let temp = tempfile::tempdir().unwrap();
    let (root, copy) = (temp.path().join("tree"), temp.path().join("copy"));
    odd_tree(&root);
    let bytes = packed(&root);
    let stats = unpack(&bytes, &Index::read(&bytes).unwrap(), &copy).unwrap();
    assert!(packed(&copy) == bytes);
    assert_eq!((stats.directories, stats.symlinks), (63, 7));
    for (name, bits) in [("mode 755", 0o111), ("mode 744", 0o111), ("mode 611", 0), ("a", 0)] {
        let mode = fs::metadata(copy.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, bits, "{name}");
    }
    for single in ["empty", "mode 755", "link absolute"] {
        let (from, to) = (root.join(single), temp.path().join(format!("copy of {single}")));
        let bytes = packed(&from);
        unpack(&bytes, &Index::read(&bytes).unwrap(), &to).unwrap();
        assert!(packed(&to) == bytes, "{single}");
    }
}

#[test]
fn the_hash_is_that_of_the_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("tree");
    odd_tree(&root);
    let bytes = packed(&root);
    let mut hashing = HashingWriter::sink();
    pack(&root, &[], &mut hashing).unwrap();
    let (_, hash, size) = hashing.finish();
    assert_eq!((hash, size), (NarHash::of(&bytes), bytes.len() as u64));
}

#[test]
fn excludes() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("tree");
    fs::create_dir_all(root.join("src/target")).unwrap();
    fs::create_dir_all(root.join("target/unreadable")).unwrap();
    for file in ["a.c", "a.o", "src/b.o", "src/b.c", "src/target/x"] {
        fs::write(root.join(file), file).unwrap();
    }
    let globs = ["target", "**/*.o"].map(|text| Glob::new(text).unwrap());
    let mut bytes = Vec::new();
    let stats = pack(&root, &globs, &mut bytes).unwrap();
    assert_eq!((stats.files, stats.directories, stats.excluded), (3, 3, 3));
    let index = Index::read(&bytes).unwrap();
    let paths: Vec<_> =
        index.walk(&bytes).into_iter().map(|(path, _)| String::from_utf8(path).unwrap()).collect();
    assert_eq!(paths, ["", "a.c", "src", "src/b.c", "src/target", "src/target/x"]);
}

#[test]
fn what_cannot_be_packed_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("tree");
    fs::create_dir_all(root.join("sub")).unwrap();
    let refused = |root: &Path| pack(root, &[], std::io::sink()).unwrap_err();

    let socket = root.join("sub/socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert!(matches!(refused(&root), PackError::Special { path, kind: "socket" } if path == socket));
    assert!(matches!(refused(&socket), PackError::Special { path, kind: "socket" } if path == socket));
    fs::remove_file(&socket).unwrap();

    assert!(matches!(refused(&root.join("no")), PackError::Disk(e) if e.path == root.join("no")));
    assert!(matches!(refused(Path::new("/dev/null")), PackError::Special { kind: "device", .. }));

    let mut deep = root.clone();
    for _ in 0..64 {
        deep.push("d");
    }
    fs::create_dir_all(&deep).unwrap();
    pack(&root, &[], std::io::sink()).unwrap();
    fs::write(deep.join("x"), b"").unwrap();
    assert!(matches!(refused(&root), PackError::Rule { path, .. } if path == deep.join("x")));
}

/// `/proc` has files that are said to be empty and are not: the nearest to one that grows.
#[test]
fn a_file_that_changes_is_an_error() {
    let path = Path::new("/proc/self/status");
    let refused = pack(path, &[], std::io::sink());
    assert!(matches!(refused, Err(PackError::Changed { announced: 0, found: 1, .. })), "{refused:?}");
}

#[test]
fn a_full_sink_is_not_taken_for_a_bad_file() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[0; 1 << 20]).unwrap();
    assert!(matches!(pack(file.path(), &[], Full), Err(PackError::Sink(_))));
}

#[test]
fn nothing_is_overwritten_or_followed() {
    let temp = tempfile::tempdir().unwrap();
    let bytes = packed(Path::new("/dev/null").parent().unwrap().join("../etc/hostname").as_path());
    let index = Index::read(&bytes).unwrap();
    let there = temp.path().join("there");
    for make in [
        |p: &Path| fs::write(p, b"x").unwrap(),
        |p: &Path| fs::create_dir(p).unwrap(),
        |p: &Path| {
            symlink("elsewhere", p).unwrap();
        },
    ] {
        make(&there);
        let refused = unpack(&bytes, &index, &there);
        assert!(matches!(refused, Err(UnpackError::Exists { path }) if path == there));
        let _ = fs::remove_file(&there).or_else(|_| fs::remove_dir(&there));
    }
    assert!(!temp.path().join("elsewhere").exists());
    assert!(matches!(unpack(&bytes, &index, Path::new("/..")), Err(UnpackError::NoName { .. })));
    let refused = unpack(&bytes, &index, &temp.path().join("no/such"));
    assert!(matches!(refused, Err(UnpackError::Disk(e)) if e.path == temp.path().join("no")));
}
