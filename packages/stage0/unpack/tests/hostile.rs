//! Archives that must be refused, and that nothing is written where it should not be.
//!
//! That nothing is outside the destination is checked by `support::Bench` in each case.

mod support;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use support::{
    Bench, Stored, ar, choice, directory, entry, file, hard_link, member, pax, refuses, seal,
    stored, symlink, tar, zip,
};
use unpack::destination::Choice;

const FIXTURES: [&str; 13] = [
    "gnu.ar",
    "hello-sha256.xz",
    "hello.bz2",
    "hello.gz",
    "hello.xz",
    "hello.zst",
    "long-gnu.tar.gz",
    "long-pax.tar.gz",
    "sample.tar.bz2",
    "sample.tar.gz",
    "sample.tar.xz",
    "sample.tar.zst",
    "sample.zip",
];

#[test]
fn names_that_lead_out() {
    check_name("/etc/passwd", "path is absolute");
    check_name("//x", "path is absolute");
    check_name("../x", "path contains `..`");
    check_name("a/../x", "path contains `..`");
    check_name("a/..", "path contains `..`");
    check_name(&"x".repeat(256), "name is longer than 255 bytes");
    refuses(
        &tar(&[entry(b"\xff", b'0', b"", b"")]),
        "\u{fffd}: path is not UTF-8",
    );
    refuses(
        &tar(&[pax(b'x', &["path=a\0b"]), file("x", "")]),
        "a\0b: path contains a NUL byte",
    );
    refuses(
        &zip(&[stored("a\0b", "")]),
        "a\0b: path contains a NUL byte",
    );
    refuses(&tar(&[file("", "1")]), ": has no name");
    refuses(&tar(&[file("./.", "1")]), "./.: has no name");
}

/// In every format, and for every kind of entry.
#[track_caller]
fn check_name(name: &str, problem: &str) {
    let message = format!("{name}: {problem}");
    let long = |kind, link: &[u8]| {
        tar(&[
            pax(b'x', &[&format!("path={name}")]),
            entry(b"x", kind, link, b""),
        ])
    };
    refuses(&long(b'0', b""), &message);
    refuses(&long(b'1', b"x"), &message);
    refuses(&long(b'2', b"x"), &message);
    refuses(&long(b'5', b""), &message);
    refuses(
        &tar(&[
            entry(b"././@LongLink", b'L', b"", name.as_bytes()),
            file("x", ""),
        ]),
        &message,
    );
    refuses(&zip(&[stored(name, "1")]), &message);
    refuses(
        &ar(&[member(&format!("#1/{}", name.len()), name)]),
        &message,
    );
    // Also if it is not wanted.
    let bench = Bench::new("archive", &long(b'0', b""));
    assert_eq!(bench.unpack(&choice("only=y")), Err(message));
}

#[test]
fn symlinks_that_lead_out() {
    check_link("l", "/etc");
    check_link("l", "..");
    check_link("d/l", "../..");
    check_link("d/l", "../../d");
    check_link("d/l", "x/../../..");
    check_link("d/l", "x/..");
    let target = "target of symlink is empty, too long or not UTF-8";
    refuses(&tar(&[symlink("l", "")]), &format!("l: {target}"));
    refuses(
        &tar(&[entry(b"l", b'2', b"\xff", b"")]),
        &format!("l: {target}"),
    );
    let long = "x/".repeat(2048);
    refuses(
        &tar(&[pax(b'x', &[&format!("linkpath={long}")]), symlink("l", "")]),
        &format!("l: {target}"),
    );
    let mut file = stored("l", &long);
    file.mode = 0o120_777;
    refuses(&zip(&[file]), &format!("l: {target}"));
}

#[track_caller]
fn check_link(name: &str, target: &str) {
    let message = format!("{name}: symlink may lead out of the destination, to `{target}`");
    refuses(&tar(&[symlink(name, target)]), &message);
    let mut file = stored(name, target);
    file.mode = 0o120_777;
    refuses(&zip(&[file]), &message);
}

/// `a/b/up -> ../..` is the root, which is fine; `a/b/up/..` would be above it.
#[test]
fn symlinks_that_lead_out_by_a_detour() {
    refuses(
        &tar(&[
            symlink("a/b/up", "../.."),
            symlink("a/b/x", "up/.."),
            file("a/b/x/f", ""),
        ]),
        "a/b/x: symlink may lead out of the destination, to `up/..`",
    );
}

#[test]
fn entries_through_symlinks() {
    let message = "l/f: path leads through a symlink";
    refuses(
        &tar(&[directory("d"), symlink("l", "d"), file("l/f", "")]),
        message,
    );
    refuses(&tar(&[symlink("l", "d"), directory("l/f")]), message);
    refuses(&tar(&[symlink("l", "d"), symlink("l/f", "x")]), message);
    refuses(
        &tar(&[file("x", ""), symlink("l", "d"), hard_link("l/f", "x")]),
        message,
    );
    refuses(
        &tar(&[symlink("l", "d"), file("l/d/f", "")]),
        "l/d/f: path leads through a symlink",
    );
    let mut link = stored("l", "d");
    link.mode = 0o120_777;
    refuses(&zip(&[link, stored("l/f", "")]), message);

    // Links that were there before are not followed either.
    for link in ["out/l", "out/d/l"] {
        let path = link.strip_prefix("out/").unwrap();
        let bench = Bench::new("archive", &tar(&[file(&format!("{path}/f"), "")]));
        fs::create_dir_all(bench.root().join("before")).unwrap();
        fs::create_dir_all(bench.root().join("out/d")).unwrap();
        stage0::tree::symlink(&bench.root().join("before"), &bench.root().join(link)).unwrap();
        assert_eq!(
            bench.unpack(&Choice::default()),
            Err(format!("{path}/f: path leads through a symlink"))
        );
        assert_eq!(
            fs::read_dir(bench.root().join("before")).unwrap().count(),
            0
        );
    }
}

#[test]
fn entries_in_place_of_others() {
    let twice = "a: is in the archive twice";
    refuses(&tar(&[file("a", "1"), file("a", "1")]), twice);
    refuses(
        &tar(&[file("a", "1"), file("./a", "2")]),
        "./a: is in the archive twice",
    );
    refuses(&tar(&[file("a", ""), symlink("a", "b")]), twice);
    refuses(&tar(&[symlink("a", "b"), file("a", "")]), twice);
    refuses(&tar(&[symlink("a", "b"), directory("a")]), twice);
    refuses(&tar(&[directory("a"), symlink("a", "b")]), twice);
    refuses(&tar(&[directory("a"), file("a", "")]), twice);
    refuses(&tar(&[file("a", ""), directory("a")]), twice);
    refuses(
        &tar(&[file("b", ""), file("a", ""), hard_link("a", "b")]),
        twice,
    );
    refuses(&tar(&[file("a", ""), hard_link("a", "a")]), twice);
    refuses(
        &tar(&[file("a", ""), file("a/b", "")]),
        "a/b: path leads through a file",
    );
    refuses(&zip(&[stored("a", "1"), stored("a", "1")]), twice);
    refuses(&ar(&[member("a", "1"), member("a", "1")]), twice);
    let bench = Bench::new("archive", &tar(&[file("x/a", ""), file("y/a", "")]));
    assert_eq!(
        bench.unpack(&choice("strip=1")),
        Err("y/a: is in the archive twice".to_owned())
    );

    // What was there before stays.
    for there in ["a", "a/b"] {
        let bench = Bench::new("archive", &tar(&[file(there, "new")]));
        fs::create_dir_all(bench.root().join("out")).unwrap();
        fs::write(bench.root().join("out/a"), "old").unwrap();
        assert!(bench.unpack(&Choice::default()).is_err());
        assert_eq!(fs::read(bench.root().join("out/a")).unwrap(), b"old");
    }
    let bench = Bench::new("archive", &tar(&[symlink("a", "b")]));
    fs::create_dir_all(bench.root().join("out/a")).unwrap();
    assert_eq!(
        bench.unpack(&Choice::default()),
        Err("a: exists already".to_owned())
    );
}

#[test]
fn hard_links_to_what_is_not_there() {
    let missing =
        |target: &str| format!("l: hard link to `{target}`, which is no file unpacked before");
    refuses(&tar(&[hard_link("l", "a"), file("a", "")]), &missing("a"));
    refuses(&tar(&[hard_link("l", "l")]), &missing("l"));
    refuses(&tar(&[directory("d"), hard_link("l", "d")]), &missing("d"));
    refuses(
        &tar(&[symlink("s", "a"), hard_link("l", "s")]),
        &missing("s"),
    );
    refuses(
        &tar(&[file("d/a", ""), symlink("s", "d"), hard_link("l", "s/a")]),
        &missing("s/a"),
    );
    refuses(
        &tar(&[hard_link("l", "/etc/passwd")]),
        "l: path is absolute",
    );
    refuses(&tar(&[hard_link("l", "../x")]), "l: path contains `..`");
    let bench = Bench::new("archive", &tar(&[file("a", ""), hard_link("l", "a")]));
    assert_eq!(bench.unpack(&choice("only=l")), Err(missing("a")));
    // Nor to what was there before.
    let bench = Bench::new("archive", &tar(&[hard_link("l", "before")]));
    fs::create_dir_all(bench.root().join("out")).unwrap();
    fs::write(bench.root().join("out/before"), "").unwrap();
    assert_eq!(bench.unpack(&Choice::default()), Err(missing("before")));
}

#[test]
fn what_is_no_file() {
    for kind in [b'3', b'4', b'6'] {
        let archive = tar(&[entry(b"dev/x", kind, b"", b""), file("a", "1")]);
        refuses(&archive, "dev/x: is a device, a pipe or a socket");
        // It can be left out.
        let out = Bench::new("archive", &archive).unpack(&choice("only=!dev/**"));
        assert_eq!(out.unwrap(), ["a=1"]);
    }
    for mode in [0o020_644, 0o060_644, 0o010_644, 0o140_644] {
        let mut device = stored("x", "");
        device.mode = mode;
        refuses(&zip(&[device]), "x: is a device, a pipe or a socket");
    }
}

#[test]
fn tar_headers_that_are_wrong() {
    let with = |at: usize, bytes: &[u8]| {
        let mut entry = file("a", "1");
        entry[at..at + bytes.len()].copy_from_slice(bytes);
        entry
    };
    let sealed = |at: usize, bytes: &[u8]| {
        let mut entry = with(at, bytes);
        seal(&mut entry);
        tar(&[entry])
    };
    refuses(&tar(&[with(0, b"b")]), "b: checksum does not match");
    refuses(&tar(&[with(148, b"9")]), "a: checksum does not match");
    refuses(
        &tar(&[file("x", ""), with(0, b"b")]),
        "b: checksum does not match",
    );
    refuses(
        &sealed(124, b"0000000000x\0"),
        "a: damaged: size in a header",
    );
    refuses(
        &sealed(124, b"\xff\xff\xff\xff"),
        "a: damaged: size in a header",
    );
    refuses(
        &sealed(124, b"\x80\0\0\x01"),
        "a: damaged: size in a header",
    );
    refuses(&sealed(124, b"77777777777\0"), "a: ends early");
    refuses(&sealed(156, b"S"), "a: a sparse file: not supported");
    refuses(
        &sealed(156, b"Z"),
        "a: an entry of this type: not supported",
    );
    refuses(
        &sealed(156, b"5"),
        "a: content without a file: not supported",
    );
    let pax_of = |records: &[&str]| tar(&[pax(b'x', records), file("a", "1")]);
    refuses(
        &pax_of(&["GNU.sparse.map=1"]),
        "pax: a sparse file: not supported",
    );
    refuses(&pax_of(&["path="]), "pax: damaged: extended header of pax");
    refuses(&pax_of(&["size=x"]), "pax: damaged: extended header of pax");
    refuses(
        &pax_of(&["size=99999999999999999999"]),
        "pax: damaged: extended header of pax",
    );
    refuses(
        &pax_of(&["nothing"]),
        "pax: damaged: extended header of pax",
    );
    for content in [
        "5",
        "x a=b\n",
        "99 a=b\n",
        "2 a=b\n",
        "0 a=b\n",
        "6 a=b\n",
        "7 a=b\n",
        "1 ",
        "18446744073709551615 a=b\n",
    ] {
        let archive = tar(&[entry(b"pax", b'x', b"", content.as_bytes()), file("a", "1")]);
        let out = Bench::new("archive", &archive).unpack(&Choice::default());
        assert_eq!(out.is_ok(), content == "6 a=b\n", "{content}");
    }
    refuses(
        &tar(&[pax(b'g', &["path=x"]), file("a", "1")]),
        "pax: a path or size for all entries: not supported",
    );
    refuses(
        &tar(&[pax(b'x', &["path=x"])]),
        "damaged: extended header without an entry",
    );
    let long = entry(b"long", b'L', b"", &[b'x'; 1024 * 1024 + 1]);
    refuses(
        &tar(&[long, file("a", "")]),
        "long: an extended header this long: not supported",
    );
}

#[test]
fn tar_that_does_not_end() {
    refuses(&file("a", "1"), "ends early");
    refuses(&file("a", "1")[..1000], "a: ends early");
    refuses(&file("a", "1")[..512], "a: ends early");
    let mut archive = tar(&[file("a", "1")]);
    archive.push(1);
    refuses(&archive, "more data after the end of the archive");
    // An archive after the archive.
    let archive = tar(&[file("a", "1")]);
    refuses(&archive.repeat(2), "more data after the end of the archive");
}

#[test]
fn zip_that_says_two_things() {
    let change = |change: fn(&mut Stored)| {
        let mut file = stored("a", "content");
        change(&mut file);
        zip(&[file])
    };
    refuses(
        &change(|file| file.crc = Some(1)),
        "a: checksum does not match",
    );
    refuses(
        &change(|file| file.size = Some(6)),
        "a: size does not match",
    );
    refuses(
        &change(|file| file.size = Some(8)),
        "a: size does not match",
    );
    refuses(
        &change(|file| file.flags = 1),
        "a: encryption: not supported",
    );
    refuses(
        &change(|file| file.method = 12),
        "a: this method of compression: not supported",
    );
    refuses(
        &change(|file| file.local_name = Some("b".to_owned())),
        "a: damaged: two headers that disagree",
    );
    refuses(
        &change(|file| file.mode = 0o040_755),
        "a: size does not match",
    );
    let mut second = stored("a", "x");
    second.offset = Some(0);
    second.content = b"content".to_vec();
    refuses(
        &zip(&[stored("a", "content"), second]),
        "a: damaged: two entries that overlap",
    );
    let good = zip(&[stored("a", "content")]);
    refuses(&[&good[..], b"x"].concat(), "ends early");
    refuses(
        &[b"PK\x03\x04", &good[..]].concat(),
        "damaged: directory of a zip file",
    );
    let mut fewer = zip(&[stored("a", "1"), stored("b", "2")]);
    let end = fewer.len() - 22;
    (fewer[end + 8], fewer[end + 10]) = (1, 1);
    refuses(&fewer, "damaged: directory of a zip file");
    (fewer[end + 8], fewer[end + 10]) = (3, 3);
    refuses(&fewer, "damaged: directory of a zip file");
    (fewer[end + 8], fewer[end + 10]) = (1, 2);
    refuses(&fewer, "a zip file in several parts: not supported");
}

#[test]
fn ar_that_is_damaged() {
    let good = ar(&[member("a", "12")]);
    refuses(&good[..good.len() - 1], "a: ends early");
    refuses(&good[..20], "ends early");
    let mut bad = good.clone();
    bad[66] = b'x';
    refuses(&bad, "a: damaged: header of a member");
    bad = good;
    bad[56] = b'x';
    refuses(&bad, "a: damaged: size of a member");
    refuses(&ar(&[member("/7", "")]), "/7: damaged: place of a name");
    refuses(
        &ar(&[member("#1/9", "12")]),
        "#1/9: damaged: length of a name",
    );
}

#[test]
fn what_is_no_archive() {
    refuses(b"", "not an archive of a known format");
    refuses(b"hello", "not an archive of a known format");
    refuses(&[b'x'; 2000], "not an archive of a known format");
    refuses(b"\x1f\x8b\x08", "ends early");
    let dir = tempfile::tempdir().unwrap();
    let error = unpack::unpack(dir.path(), Path::new("out"), &Choice::default()).unwrap_err();
    assert!(error.to_string().ends_with(": is a directory"), "{error}");
}

#[test]
fn data_after_the_end() {
    for name in FIXTURES.into_iter().filter(|name| *name != "gnu.ar") {
        let content = [&fixture(name)[..], b"more"].concat();
        let out = Bench::new(name, &content).unpack(&Choice::default());
        assert!(out.is_err(), "{name}: {out:?}");
    }
}

#[test]
fn windows_of_any_size() {
    // A frame of zstd with a window of 2^41 bytes.
    refuses_damaged(b"\x28\xb5\x2f\xfd\x00\xf8\x01\0\0");
    // A block of xz with a dictionary of 4 GiB: the code 40 in `hello.xz`, and a new checksum.
    let mut content = fixture("hello.xz");
    let header = content
        .windows(2)
        .position(|pair| pair == [0x21, 0x01])
        .unwrap()
        - 2;
    content[header + 4] = 40;
    let length = (usize::from(content[header]) + 1) * 4;
    let mut crc = flate2::Crc::new();
    crc.update(&content[header..header + length - 4]);
    content[header + length - 4..header + length].copy_from_slice(&crc.sum().to_le_bytes());
    let out = Bench::new("archive", &content).unpack(&Choice::default());
    assert!(
        out.as_ref().is_err_and(|message| message.contains("mem")),
        "{out:?}"
    );
}

#[track_caller]
fn refuses_damaged(archive: &[u8]) {
    let out = Bench::new("archive", archive).unpack(&Choice::default());
    assert!(
        out.as_ref()
            .is_err_and(|message| message.starts_with("damaged")),
        "{out:?}"
    );
}

/// Whatever is cut off, it is noticed. Ar is let off: it does not say how long it is.
#[test]
fn archives_cut_off_anywhere() {
    for name in FIXTURES.into_iter().filter(|name| *name != "gnu.ar") {
        let content = fixture(name);
        for length in 0..content.len() {
            let out = Bench::new(name, &content[..length]).unpack(&Choice::default());
            assert!(out.is_err(), "{name} cut to {length}: {out:?}");
        }
    }
}

/// Whatever bit is flipped in a compressed file, it is noticed, or makes no difference.
#[test]
fn bits_flipped_anywhere() {
    for name in FIXTURES
        .into_iter()
        .filter(|name| !name.ends_with("ar") && !name.ends_with("zip"))
    {
        let content = fixture(name);
        let good = Bench::new(name, &content)
            .unpack(&Choice::default())
            .unwrap();
        for at in 0..content.len() {
            let mut content = content.clone();
            content[at] ^= 1 << (at % 8);
            let out = Bench::new(name, &content).unpack(&Choice::default());
            assert!(
                out.is_err() || out.as_ref() == Ok(&good),
                "{name} at {at}: {out:?}"
            );
        }
    }
}

proptest! {
    /// No damage makes the tool panic or write outside, whatever the format.
    #[test]
    fn damage_does_no_harm(
        name in prop::sample::select(FIXTURES.to_vec()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut content = fixture(name);
        for (at, byte) in changes {
            let at = at.index(content.len());
            content[at] = byte;
        }
        let _ = Bench::new(name, &content).unpack(&Choice::default());
    }

    /// The same for what is inside: headers of tar with right checksums, and zip's directory.
    #[test]
    fn strange_archives_do_no_harm(
        entries in prop::collection::vec((
            prop::sample::select(vec!["a", "a/b", "l", "l/a", "d/l", "..", "/x", "d", "d/", "", "./d/../x"]),
            prop::sample::select(b"0125367LKxgSV\0".to_vec()),
            prop::sample::select(vec!["", "a", "..", "../..", "/", "d", "l/..", "12 path=../x\n", "9 path=d\n"]),
        ), 0..8),
    ) {
        let tar = tar(&entries.iter().map(|(name, kind, text)| match kind {
            b'1' | b'2' => entry(name.as_bytes(), *kind, text.as_bytes(), b""),
            _ => entry(name.as_bytes(), *kind, b"", text.as_bytes()),
        }).collect::<Vec<_>>());
        let zip = zip(&entries.iter().map(|(name, kind, text)| Stored {
            mode: [0o100_644, 0o120_777, 0o040_755, 0][usize::from(kind % 4)],
            ..stored(name, text)
        }).collect::<Vec<_>>());
        for archive in [tar, zip] {
            let _ = Bench::new("archive", &archive).unpack(&Choice::default());
        }
    }
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read(path.join(name)).unwrap()
}
