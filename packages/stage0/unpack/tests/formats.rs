//! Every format: fixtures made by the usual tools, and what must come out of them.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use support::{
    Bench, ar, choice, directory, entry, file, hard_link, list, member, pax, refuses, seal, stored,
    symlink, tar, unpacks, zip,
};
use unpack::destination::Choice;

const SAMPLE: &str = "pkg/ pkg/bin/ pkg/bin/link->../hello.txt pkg/bin/tool: 3000 bytes \
                      pkg/empty/ pkg/hard=hello pkg/hello.txt=hello";

const SAMPLES: [&str; 5] = [
    "sample.tar.gz",
    "sample.tar.xz",
    "sample.tar.bz2",
    "sample.tar.zst",
    "sample.zip",
];

#[test]
fn samples_are_unpacked() {
    for name in SAMPLES {
        let out = Bench::new(name, &fixture(name)).unpack(&Choice::default());
        assert_eq!(
            out.map(|lines| lines.join(" ")).as_deref(),
            Ok(SAMPLE),
            "{name}"
        );
    }
}

#[test]
fn content_is_right_to_the_byte() {
    let tool: Vec<u8> = (0..3000_u32).map(|i| (i * i % 251) as u8).collect();
    for name in SAMPLES {
        let bench = Bench::new(name, &fixture(name));
        bench.unpack(&Choice::default()).unwrap();
        let content = fs::read(bench.root().join("out/pkg/bin/tool")).unwrap();
        assert_eq!(content, tool, "{name}");
    }
}

#[test]
fn long_names_are_read() {
    let name = "long-".repeat(40);
    for archive in ["long-gnu.tar.gz", "long-pax.tar.gz"] {
        let out = Bench::new(archive, &fixture(archive)).unpack(&Choice::default());
        let expected = [
            format!("link->{name}/{name}/file"),
            format!("{name}/"),
            format!("{name}/{name}/"),
            format!("{name}/{name}/file=long"),
        ];
        assert_eq!(out.as_deref(), Ok(&expected[..]), "{archive}");
    }
    let out = Bench::new("v7.tar.gz", &fixture("v7.tar.gz")).unpack(&Choice::default());
    assert_eq!(
        out.unwrap(),
        ["bin/", "bin/tool: 3000 bytes", "empty/", "hello.txt=hello"]
    );
}

#[test]
fn single_files_are_named_after_the_archive() {
    for suffix in ["gz", "xz", "bz2", "zst"] {
        let content = fixture(&format!("hello.{suffix}"));
        let unpacked = |name: &str| Bench::new(name, &content).unpack(&Choice::default());
        assert_eq!(
            unpacked(&format!("hello.txt.{suffix}")).unwrap(),
            ["hello.txt=hello"]
        );
        assert_eq!(unpacked("archive").unwrap(), ["archive=hello"]);
        let bench = Bench::new("archive", &content);
        assert_eq!(
            bench.unpack(&choice("archive=>a/b")).unwrap(),
            ["a/", "a/b=hello"]
        );
        // Streams can be put one after the other.
        let twice = content.repeat(2);
        assert_eq!(
            Bench::new("archive", &twice)
                .unpack(&Choice::default())
                .unwrap(),
            ["archive=hello\nhello"]
        );
    }
    unpacks(&fixture("hello-sha256.xz"), "archive=hello");
    let skipped = [
        b"\x50\x2a\x4d\x18\x03\0\0\0xyz".to_vec(),
        fixture("hello.zst"),
    ]
    .concat();
    unpacks(&skipped, "archive=hello");
}

#[test]
fn tar_in_its_variants() {
    unpacks(&tar(&[]), "");
    unpacks(&tar(&[directory("./"), file("./a", "1")]), "a=1");
    unpacks(
        &tar(&[file("a", "1"), hard_link("b/c", "./a")]),
        "a=1 b/ b/c=1",
    );
    unpacks(
        &tar(&[symlink("d/l", "../x/y"), file("x", "")]),
        "d/ d/l->../x/y x=",
    );
    unpacks(
        &tar(&[directory("d"), directory("d/"), file("d/a", "1")]),
        "d/ d/a=1",
    );
    unpacks(&tar(&[pax(b'g', &["comment=abc"]), file("a", "1")]), "a=1");
    unpacks(
        &tar(&[
            pax(
                b'x',
                &["path=b/c", "mtime=1.5", "SCHILY.xattr.user.x=\0\n="],
            ),
            file("a", "1"),
        ]),
        "b/ b/c=1",
    );
    unpacks(
        &tar(&[pax(b'x', &["linkpath=b"]), symlink("a", "x"), file("c", "")]),
        "a->b c=",
    );
    unpacks(
        &tar(&[pax(b'x', &["size=3"]), header_without_size("a", b"abc")]),
        "a=abc",
    );
    unpacks(
        &tar(&[
            entry(b"a", b'7', b"", b"1"),
            entry(b"label", b'V', b"", b""),
        ]),
        "a=1",
    );
    let mut split = entry(b"name", b'0', b"", b"1");
    split[345..351].copy_from_slice(b"prefix");
    seal(&mut split);
    unpacks(&tar(&[split]), "prefix/ prefix/name=1");
    let mut binary = entry(b"a", b'0', b"", b"123");
    binary[124..136].copy_from_slice(b"\x80\0\0\0\0\0\0\0\0\0\0\x03");
    seal(&mut binary);
    unpacks(&tar(&[binary]), "a=123");
    // One block of zeros ends an archive, and any number of them.
    let archive = file("a", "1");
    unpacks(&[&archive[..], &[0; 512]].concat(), "a=1");
    unpacks(&[&archive[..], &[0; 10240]].concat(), "a=1");
}

#[test]
fn zip_in_its_variants() {
    unpacks(&zip(&[]), "");
    let mut link = stored("d/l", "../a");
    link.mode = 0o120_777;
    let mut directory = stored("e", "");
    directory.mode = 0o040_755;
    let mut plain = stored("a", "1");
    plain.mode = 0;
    unpacks(
        &zip(&[plain, link, stored("f/", ""), directory]),
        "a=1 d/ d/l->../a e/ f/",
    );
    let mut commented = zip(&[stored("a", "1")]);
    let comment = b"PK\x05\x06 is not the end";
    let length = commented.len();
    commented[length - 2] = comment.len() as u8;
    commented.extend(comment);
    unpacks(&commented, "a=1");
}

/// A file of which the directory tells everything in 64 bits, as if it were large.
#[test]
fn zip_64() {
    const FULL: [u8; 4] = [0xff; 4];
    let small = zip(&[stored("a", "content")]);
    let central = small.len() - 22 - 47;
    let mut archive = small[..central].to_vec();
    let mut entry = small[central..central + 47].to_vec();
    entry[20..24].copy_from_slice(&FULL); // Packed size.
    entry[24..28].copy_from_slice(&FULL); // Size.
    entry[42..46].copy_from_slice(&FULL); // Offset.
    entry[30] = 32; // Length of the extra fields: one of no interest, and that of Zip64.
    entry.extend(b"xx\0\0\x01\0\x18\0");
    for number in [7_u64, 7, 0] {
        entry.extend(number.to_le_bytes());
    }
    archive.extend(&entry);
    let end_64 = archive.len() as u64;
    archive.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\x03\x2d\0\0\0\0\0\0\0\0\0");
    for number in [1, 1, entry.len() as u64, central as u64] {
        archive.extend(number.to_le_bytes());
    }
    archive.extend(b"PK\x06\x07\0\0\0\0");
    archive.extend(end_64.to_le_bytes());
    archive.extend(b"\x01\0\0\0PK\x05\x06\0\0\0\0");
    archive.extend([FULL; 3].concat());
    archive.extend([0, 0]);
    unpacks(&archive, "a=content");

    let at = central + 46 + 1 + 4 + 4; // The size in the extra field.
    archive[at] = 8;
    refuses(&archive, "a: size does not match");
    archive[at - 2] = 9; // The length of the extra field.
    refuses(&archive, "damaged: directory of a zip file");
}

#[test]
fn ar_in_its_variants() {
    let out = Bench::new("x.ar", &fixture("gnu.ar")).unpack(&Choice::default());
    assert_eq!(
        out.unwrap(),
        [
            "a-name-that-is-too-long-for-ar.txt=long",
            "hello.txt=hello",
            "odd=x"
        ]
    );
    let bsd = member("#1/8", "name\0\0\0\0content");
    unpacks(
        &ar(&[
            member("debian-binary", "2.0\n"),
            member("/", "symbols"),
            bsd,
        ]),
        "debian-binary=2.0 name=content",
    );
    unpacks(&ar(&[]), "");
}

#[test]
fn a_choice_is_followed() {
    let link = "bin/link->../hello.txt";
    chooses(
        "strip=1",
        &format!("bin/ {link} bin/tool: 3000 bytes empty/ hard=hello hello.txt=hello"),
    );
    chooses("strip=2 only=tool", "tool: 3000 bytes");
    chooses(
        "strip=1 only=bin/**",
        &format!("bin/ {link} bin/tool: 3000 bytes"),
    );
    chooses(
        "only=**/hard only=**/empty",
        "pkg/ pkg/empty/ pkg/hard=hello",
    );
    chooses(
        "strip=1 only=!bin/** only=!empty",
        "hard=hello hello.txt=hello",
    );
    chooses(
        "strip=1 only=bin/tool bin=>x/y",
        "x/ x/y/ x/y/tool: 3000 bytes",
    );
    chooses("only=**/tool pkg/bin/tool=>t", "t: 3000 bytes");
    chooses("only=pkg/bin/tool pkg/bin=>. pkg=>x", "tool: 3000 bytes"); // The first that applies.
    chooses("only=pkg/hard pkg=>.", "hard=hello");
    let refuses = |words: &str, message: &str| {
        let out = Bench::new("s", &fixture("sample.tar.gz")).unpack(&choice(words));
        assert_eq!(out, Err(message.to_owned()));
    };
    refuses(
        "strip=2",
        "pkg/bin/link: symlink may lead out of the destination, to `../hello.txt`",
    );
    refuses("only=pkg/hard pkg/hard=>.", "pkg/hard: has no name");
    refuses("only=nothing", "nothing in this archive was chosen");
    refuses("strip=9", "nothing in this archive was chosen");
}

#[track_caller]
fn chooses(words: &str, expected: &str) {
    let out = Bench::new("s", &fixture("sample.tar.gz")).unpack(&choice(words));
    assert_eq!(out.map(|lines| lines.join(" ")), Ok(expected.to_owned()));
}

#[test]
fn the_command_line_is_read() {
    let bench = Bench::new("a.zip", &fixture("sample.zip"));
    let path = |name: &str| bench.root().join(name).display().to_string();
    let run = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| word.to_string()).collect();
        unpack::run(&words).map_err(|failure| matches!(failure, stage0::command::Failure::Usage(_)))
    };
    let (archive, out) = (path("a.zip"), path("o"));
    let order = [
        &archive, &out, "--strip", "1", "--only", "h*", "--only", "bin/tool", "--rename", "bin=b",
    ];
    run(&order).unwrap();
    assert_eq!(
        list(Path::new(&out)),
        ["b/", "b/tool: 3000 bytes", "hard=hello", "hello.txt=hello"]
    );
    assert_eq!(run(&[&path("missing"), &out]), Err(false));
    for words in [
        &[][..],
        &[&archive[..]],
        &[&archive, &out, "x"],
        &[&archive, &out, "--strip", "-1"],
        &[&archive, &out, "--strip"],
        &[&archive, &out, "--rename", "a"],
        &[&archive, &out, "--rename", "a=../b"],
        &[&archive, &out, "--what"],
    ] {
        assert_eq!(run(words), Err(true), "{words:?}");
    }
}

/// What the usual tools pack, we unpack.
#[test]
fn what_tools_pack_is_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let long = format!("deep/{}/{}", "d".repeat(120), "e".repeat(120));
    fs::create_dir_all(at("tree").join(&long)).unwrap();
    fs::create_dir_all(at("tree/empty")).unwrap();
    for (name, content) in [
        ("a", vec![0; 100_000]),
        ("ä b", b"text".to_vec()),
        ("c", vec![]),
    ] {
        fs::write(at("tree").join(name), &content).unwrap();
        fs::write(at("tree").join(&long).join(name), &content).unwrap();
    }
    // Larger than any buffer or window, and not all the same.
    let large: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(i) >> 13) as u8)
        .collect();
    fs::write(at("tree/large"), &large).unwrap();
    stage0::tree::symlink(Path::new("../a"), &at("tree/deep/link")).unwrap();
    let packers: [(&str, &[&str]); 7] = [
        (
            "gnu.tar",
            &["tar", "--format=gnu", "-cf", "../gnu.tar", "."],
        ),
        (
            "pax.tar",
            &["tar", "--format=posix", "-cf", "../pax.tar", "."],
        ),
        ("gnu.tar.gz", &["tar", "-czf", "../gnu.tar.gz", "."]),
        ("gnu.tar.xz", &["tar", "-cJf", "../gnu.tar.xz", "."]),
        ("gnu.tar.bz2", &["tar", "-cjf", "../gnu.tar.bz2", "."]),
        (
            "gnu.tar.zst",
            &["tar", "--zstd", "-cf", "../gnu.tar.zst", "."],
        ),
        ("info.zip", &["zip", "-qry", "../info.zip", "."]),
    ];
    for (archive, command) in packers {
        let packed = Command::new(command[0])
            .args(&command[1..])
            .current_dir(at("tree"))
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !packed {
            continue; // No such tool here.
        }
        let out = at("out").join(archive);
        unpack::unpack(&at(archive), &out, &Choice::default()).unwrap();
        assert_eq!(list(&out), list(&at("tree")), "{archive}");
        assert!(fs::read(out.join("large")).unwrap() == large, "{archive}");
    }
}

proptest! {
    /// What is packed comes out.
    #[test]
    fn files_survive(contents in prop::collection::btree_map("[a-z]{1,3}/[a-z]{1,9}", "[a-z]{0,1500}", 1..5)) {
        let entries: Vec<_> = contents.iter().map(|(name, content)| file(name, content)).collect();
        let files: Vec<_> = contents.iter().map(|(name, content)| stored(name, content)).collect();
        for archive in [tar(&entries), zip(&files)] {
            let bench = Bench::new("archive", &archive);
            bench.unpack(&Choice::default()).unwrap();
            for (name, content) in &contents {
                let path = bench.root().join("out").join(name);
                prop_assert_eq!(&fs::read_to_string(path).unwrap(), content);
            }
        }
    }
}

fn header_without_size(name: &str, content: &[u8]) -> Vec<u8> {
    let mut entry = entry(name.as_bytes(), b'0', b"", content);
    entry[124..136].copy_from_slice(b"00000000000\0");
    seal(&mut entry);
    entry
}

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read(path.join(name)).unwrap()
}
