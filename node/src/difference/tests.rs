//! Differences of whole archives, as they are shown.

mod laws;
mod wasm;

use std::collections::BTreeMap;

use protocol::nar::Writer;

use super::*;

/// What an archive is made from.
#[derive(Debug, Clone, PartialEq)]
enum Tree {
    File(bool, Vec<u8>),
    Symlink(Vec<u8>),
    Directory(BTreeMap<Vec<u8>, Tree>),
}

fn file(content: impl AsRef<[u8]>) -> Tree {
    Tree::File(false, content.as_ref().to_vec())
}

fn directory<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    Tree::Directory(entries.into_iter().map(|(name, tree)| (name.as_bytes().to_vec(), tree)).collect())
}

fn nar(tree: &Tree) -> Vec<u8> {
    fn write(tree: &Tree, to: &mut Writer<Vec<u8>>) {
        match tree {
            Tree::File(executable, content) => {
                to.file(*executable, content.len() as u64, &content[..]).unwrap()
            }
            Tree::Symlink(target) => to.symlink(target).unwrap(),
            Tree::Directory(entries) => {
                to.directory().unwrap();
                for (name, entry) in entries {
                    to.entry(name).unwrap();
                    write(entry, to);
                }
                to.end().unwrap();
            }
        }
    }
    let mut writer = Writer::new(Vec::new());
    write(tree, &mut writer);
    writer.finish().unwrap()
}

fn module(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

/// An `ar` archive as GNU tools write it.
fn library(members: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, time, content) in members {
        bytes.extend(format!("{:16}{time:12}{:6}{:6}{:8}{:<10}`\n", name, 0, 0, 644, content.len()).bytes());
        bytes.extend(*content);
        bytes.extend(&b"\n"[..content.len() % 2]);
    }
    bytes
}

fn difference(left: &Tree, right: &Tree) -> Difference {
    compare(&nar(left), &nar(right)).unwrap()
}

/// Checks what is shown of two trees, each line of which is trimmed on the right.
#[track_caller]
fn check(left: &Tree, right: &Tree, expected: &str) {
    let shown = difference(left, right).to_string();
    let shown: Vec<_> = shown.lines().map(str::trim_end).collect();
    let expected: Vec<_> = expected.lines().collect();
    assert_eq!(shown, expected, "\n{}", shown.join("\n"));
}

#[test]
fn trees() {
    let (a, b) = (|| file("a\n"), || file("b\n"));
    check(&a(), &a(), "");
    check(&a(), &b(), ".\n  @@ -1,1 +1,1 @@\n  -a\n  +b");
    check(
        &directory([("a", a()), ("d", directory([("x", a()), ("y", directory([("z", a())]))]))]),
        &directory([("b", a())]),
        "a\n  only on the left: a file, 2 bytes\nb\n  only on the right: a file, 2 bytes\nd\n  only on the left: a directory, 3 entries below it",
    );
    check(
        &directory([("d", directory([("e", a())]))]),
        &directory([("d", directory([("e", Tree::Symlink(b"/".to_vec()))]))]),
        "d/e\n  a file on the left, a symlink on the right",
    );
    check(
        &Tree::Symlink(b"../a".to_vec()),
        &Tree::Symlink(b"../b\x1b[0m".to_vec()),
        ".\n  - symlink to ../a\n  + symlink to ../b\\u{1b}[0m",
    );
    check(&a(), &Tree::File(true, b"a\n".to_vec()), ".\n  executable only on the right");
    check(
        &Tree::File(true, b"a\n".to_vec()),
        &b(),
        ".\n  executable only on the left\n  @@ -1,1 +1,1 @@\n  -a\n  +b",
    );
}

#[test]
fn texts_bytes_and_what_is_neither() {
    check(
        &file("one\ntwo\n"),
        &file("one\ntwo"),
        ".\n  @@ -1,2 +1,2 @@\n   one\n  -two\n  +two\n  \\ no end of line at the end of the file",
    );
    check(
        &file(b"\0\x01abc"),
        &file(b"\0\x01abd!"),
        ".\n  5 and 6 bytes; the first that differs is 0x4\n  - 0x000000  00 01 61 62 63                                   ..abc\n  + 0x000000  00 01 61 62 64 21                                ..abd!",
    );
    check(
        &file("text\n"),
        &file(b"\xff\n"),
        ".\n  5 and 2 bytes; the first that differs is 0x0\n  - 0x000000  74 65 78 74 0a                                   text.\n  + 0x000000  ff 0a                                            ..",
    );
}

#[test]
fn libraries() {
    let (one, two) = (module("(module (func $f nop))"), module("(module (func $f unreachable))"));
    check(
        &file(library(&[("a.o/", "0", &one), ("b.o/", "0", b"same"), ("old.o/", "0", b"")])),
        &file(library(&[("a.o/", "0", &two), ("b.o/", "1700000000", b"same"), ("new.o/", "0", b"x")])),
        ".
  member a.o
    section code: 5 bytes on both sides
    function 0 $f
      3 bytes on both sides; instruction 1 is the first that differs
      - 0x000017  nop
      + 0x000017  unreachable
        0x000018  end
  member b.o
    - time 0
    + time 1700000000
  member old.o
    only on the left, 0 bytes
  member new.o
    only on the right, 1 bytes",
    );
    let names = b"a_member_with_a_long_name.o/\nanother_one_of_them.o/\n";
    check(
        &file(library(&[("//", "", names), ("/0", "0", b"a"), ("/29", "0", b"b")])),
        &file(library(&[("//", "", names), ("/29", "0", b"b"), ("/0", "0", b"a")])),
        ".\n  members are in another order",
    );
    let bsd = |content: &[u8]| library(&[("#1/8", "0", &[b"name.o\0\0", content].concat())]);
    let shown = difference(&file(bsd(b"a")), &file(bsd(b"b"))).to_string();
    assert!(shown.starts_with(".\n  member name.o\n    @@"), "{shown}");
}

#[test]
fn damaged_libraries_are_shown_as_bytes() {
    let whole = library(&[("a/", "0", b"1234")]);
    let with = |at: usize, bytes: &[u8]| {
        let mut damaged = whole.clone();
        damaged[at..at + bytes.len()].copy_from_slice(bytes);
        damaged
    };
    let header = [&whole[..], b"b/"].concat();
    for (damaged, why) in [
        (header, "byte 72: a header ends early"),
        (with(66, b"xx"), "byte 8: a header without its end mark"),
        (with(56, b"-1"), "byte 8: a size that is not a number"),
        (with(56, b"99"), "byte 8: a member of 99 bytes, but only 4 are left"),
        (with(8, b"/9"), "byte 8: a name that is not there"),
        (with(8, b"#1/9"), "byte 8: a name that is not there"),
    ] {
        let shown = difference(&file(&whole), &file(damaged)).to_string();
        assert!(
            shown.contains(&format!(
                "compared as bytes: the right one cannot be read as an `ar` archive: {why}\n"
            )),
            "{why}\n{shown}"
        );
    }
}

#[test]
fn archives_in_archives_up_to_a_depth() {
    let nest = |content: &str, depth: usize| (0..depth).fold(file(content), |tree, _| file(nar(&tree)));
    let shown = difference(&nest("a\n", 4), &nest("b\n", 4)).to_string();
    assert!(shown.ends_with("-a\n                  +b\n"), "{shown}");
    let shown = difference(&nest("a\n", 5), &nest("b\n", 5)).to_string();
    assert!(shown.contains("too deep"), "{shown}");
}

#[test]
fn what_is_too_much_is_counted() {
    let many = |n: usize, content: &str| {
        Tree::Directory((0..n).map(|n| (format!("{n:05}").into_bytes(), file(content))).collect())
    };
    let found = difference(&many(3000, "a\n"), &many(3000, "b\n"));
    assert_eq!((found.entries.len(), found.omitted), (limits::ENTRIES, 3000 - limits::ENTRIES as u64));
    let unopened = found
        .entries
        .iter()
        .filter(|entry| matches!(entry.changes[..], [Change::Content(Content::Unopened { .. })]));
    assert_eq!(unopened.count(), limits::ENTRIES - limits::OPENED);

    let functions = |constant: i32| {
        let functions: Vec<_> = (0..200).map(|n| format!("(func $f{n} i32.const {constant} drop)")).collect();
        file(module(&format!("(module {})", functions.concat())))
    };
    let found = difference(&functions(1), &functions(2));
    let Change::Content(Content::Wasm(wasm)) = &found.entries[0].changes[0] else { panic!("{found}") };
    assert_eq!((wasm.items.len(), wasm.tallies[0].differ), (limits::ITEMS_SHOWN, 200));
    let code = wasm.items.iter().filter(|item| matches!(item.details[..], [Detail::Code(_)]));
    assert_eq!(code.count(), limits::DISASSEMBLED);
}

#[test]
fn what_is_no_archive_is_refused() {
    let whole = nar(&file(""));
    assert!(matches!(compare(&whole[1..], &whole), Err(CompareError::Left(_))));
    assert!(matches!(compare(&whole, b""), Err(CompareError::Right(_))));
}

/// The value is what other programs read: its form is part of what we promise.
#[test]
fn json() {
    let found =
        difference(&directory([("a", file("1\n")), ("b", file("x"))]), &directory([("a", file("2\n"))]));
    let line = |kind, text| serde_json::json!({ "kind": kind, "text": text, "before": 0, "after": 0, "ended": true });
    let expected = serde_json::json!({
        "lengths": { "left": 480, "right": 288 },
        "entries": [
            {
                "path": "a",
                "changes": [{ "content": { "text": {
                    "hunks": [{ "starts": { "left": 1, "right": 1 }, "lines": [line("left", "1"), line("right", "2")] }],
                    "omitted": { "left": 0, "right": 0 },
                    "uncompared": { "left": 0, "right": 0 },
                } } }],
            },
            { "path": "b", "changes": [{ "only": { "side": "left", "kind": "file", "size": 1 } }] },
        ],
        "omitted": 0,
    });
    assert_eq!(serde_json::to_value(&found).unwrap(), expected);
}
