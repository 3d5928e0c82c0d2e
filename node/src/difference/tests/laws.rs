//! What holds for all archives, whatever strangers put into them.

use proptest::prelude::*;

use super::*;

/// Whatever strangers chose as names and contents does nothing to a terminal.
#[test]
fn hostile_names_are_harmless() {
    let hostile = "\u{1b}]0;x\u{7}\u{202e}\u{2066}\u{200b}\r\n\u{9b}";
    let wat = |n: i32| {
        let quoted: String = hostile.chars().map(|c| format!("\\u{{{:x}}}", c as u32)).collect();
        module(&format!(
            "(module (import \"{quoted}\" \"{quoted}\" (func (param {}))) (func (export \"{quoted}{n}\"))
              (func (export \"{quoted}\") i32.const {n} drop) (@custom \"{quoted}\" \"{n}\"))",
            if n == 1 { "i32" } else { "i64" }
        ))
    };
    let tree = |n: i32| {
        let member = format!("\u{1b}[2J\u{202e}{n}");
        let library = library(&[("a", &format!("\u{1b}[{n}m"), &wat(n)), (&member, "", b"")]);
        let files =
            [("lib.a", file(library)), ("m.wasm", file(wat(n))), ("text", file(format!("{hostile}\n{n}")))];
        let mut files = directory(files);
        let Tree::Directory(entries) = &mut files else { unreachable!() };
        entries.insert(hostile.as_bytes().to_vec(), Tree::Symlink(format!("{hostile}{n}").into_bytes()));
        entries.insert([b"\xff", hostile.as_bytes()].concat(), file(n.to_string()));
        files
    };
    let found = difference(&tree(1), &tree(2));
    assert!(found.to_string().len() > 1000);
    assert_harmless(&found);
}

#[track_caller]
fn assert_harmless(found: &Difference) {
    let json = serde_json::to_value(found).unwrap();
    let mut left = vec![&json];
    while let Some(value) = left.pop() {
        match value {
            serde_json::Value::String(text) => {
                assert!(text.chars().all(|c| c == '\t' || protocol::plain::is_plain(c)), "{text:?}");
            }
            serde_json::Value::Array(values) => left.extend(values),
            serde_json::Value::Object(fields) => left.extend(fields.values()),
            _ => {}
        }
    }
    assert!(found.to_string().chars().all(|c| "\n\t".contains(c) || protocol::plain::is_plain(c)));
}

/// A module with something in every section.
fn rich() -> Vec<u8> {
    module(
        "(module
            (type $t (func (param i32) (result i32)))
            (import \"env\" \"f\" (func $f (type $t))) (import \"env\" \"g\" (global $g i32))
            (table 4 funcref) (memory 1) (tag (param i32))
            (global $h (mut i64) (i64.const -1))
            (func $one (type $t) (local i64 f32) local.get 0 if (result i32) i32.const 1 call $f else i32.const 2 end)
            (func $two (export \"two\") (result v128) v128.const i64x2 1 2)
            (func $three (param i32) block block block local.get 0 br_table 0 1 2 1 0 end end end)
            (func $four i32.const 0 i32.const 0 i32.atomic.load offset=8 i32.store8 offset=4 f64.const nan drop
                i32.const 1 i32.const 0 call_indirect (type $t) drop)
            (start $four)
            (elem (i32.const 0) func $one $two) (elem declare func $three)
            (data (i32.const 0) \"some data\") (data \"more\")
            (@custom \"producers\" \"\\00\"))",
    )
}

/// Every module with one damaged byte, beside the whole one and beside itself.
#[test]
fn damaged_modules_never_panic() {
    let whole = rich();
    let same = file(&whole);
    for at in 0..whole.len() {
        for value in [0, 1, 0x0b, 0x40, 0x7f, 0x80, 0xfb, 0xff, whole[at] ^ 1, whole[at].wrapping_add(1)] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            assert_eq!(
                difference(&same, &file(&damaged)).is_empty(),
                damaged == whole,
                "byte {at} is {value}"
            );
            damaged.truncate(at);
            assert!(!difference(&file(&damaged), &same).is_empty(), "cut at {at}");
        }
    }
}

fn tree() -> impl Strategy<Value = Tree> {
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(prop::sample::select(vec!["a\n", "b\n", "\n", "c", "ä\r\n"]), 0..12)
            .prop_map(|lines| lines.concat().into_bytes()),
        prop::sample::select(vec![
            rich(),
            library(&[("a/", "0", b"1"), ("b/", "0", b"2")]),
            library(&[("b/", "0", b"2"), ("a/", "0", b"1")]),
            nar(&file("inner\n")),
        ]),
    ];
    let leaf = prop_oneof![
        (any::<bool>(), content).prop_map(|(x, content)| Tree::File(x, content)),
        prop::collection::vec(1..=255u8, 1..20).prop_map(Tree::Symlink),
    ];
    let name =
        prop::sample::select(vec!["a", "b", "c", "ä", "\u{202e}"]).prop_map(|name| name.as_bytes().to_vec());
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop::collection::btree_map(name.clone(), inner, 0..5).prop_map(Tree::Directory)
    })
}

proptest! {
    /// An archive has no difference from itself; two that are not the same have one, and it is harmless.
    #[test]
    fn archives_differ_if_and_only_if_a_difference_is_found(left in tree(), right in tree()) {
        prop_assert!(difference(&left, &left).is_empty());
        let found = difference(&left, &right);
        prop_assert_eq!(found.is_empty(), left == right);
        prop_assert_eq!(found.to_string().is_empty(), left == right);
        assert_harmless(&found);
    }

    /// Files that are nearly the same, of every kind that is looked into.
    #[test]
    fn damage_is_always_found(
        which in 0..4usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let whole = match which {
            0 => rich(),
            1 => library(&[("a.o/", "0", &rich()), ("b/", "0", b"2\n3\n")]),
            2 => nar(&directory([("a", file(rich())), ("b", file("text\nmore\n"))])),
            _ => b"some\ntext\nof\nlines\n".repeat(9),
        };
        let mut damaged = whole.clone();
        for (at, value, how) in damage {
            let at = at.index(damaged.len());
            match how {
                0 => damaged[at] = value,
                1 => damaged.insert(at, value),
                _ if damaged.len() > 1 => drop(damaged.remove(at)),
                _ => {}
            }
        }
        let found = difference(&file(&whole), &file(&damaged));
        prop_assert_eq!(found.is_empty(), whole == damaged);
        assert_harmless(&found);
        let back = difference(&file(&damaged), &file(&whole));
        prop_assert_eq!(back.is_empty(), whole == damaged);
    }
}
