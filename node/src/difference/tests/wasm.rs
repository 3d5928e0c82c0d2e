//! Differences of modules, as they are shown.

use super::*;

#[test]
fn a_function_that_was_inserted_leaves_the_others_alone() {
    let left = "(module
        (import \"wasi\" \"exit\" (func (param i32)))
        (global (mut i32) (i32.const 7))
        (func (export \"run\") call 2)
        (func i32.const 1 call 0 call 3)
        (func global.get 0 drop))";
    let right = "(module
        (import \"wasi\" \"exit\" (func (param i32)))
        (global (mut i32) (i32.const 7))
        (func (result i64) i64.const 5)
        (func (export \"run\") call 3)
        (func i32.const 1 call 0 call 4)
        (func global.get 0 drop))";
    check(
        &file(module(left)),
        &file(module(right)),
        ".
  section types: 8 and 12 bytes
    8 and 12 bytes; the first that differs is 0x0
    - 0x000000  02 60 01 7f 00 60 00 00                          .`...`..
    + 0x000000  03 60 01 7f 00 60 00 01 7e 60 00 00              .`...`..~`..
  section function types: 4 and 5 bytes
  section exports: 7 bytes on both sides; the same, with other indices
  section code: 21 and 26 bytes
  function 1: only on the right",
    );
}

#[test]
fn functions_are_found_by_name_and_shown_by_instruction() {
    let module = |order: [&str; 2], constant: i32| {
        let f = format!("(func $f (local i64) i32.const {constant} call $log)");
        let function = |name: &str| if name == "f" { f.clone() } else { "(func $g call $f)".into() };
        module(&format!(
            "(module (import \"env\" \"log\" (func $log (param i32))) {} {})",
            function(order[0]),
            function(order[1])
        ))
    };
    check(
        &file(module(["f", "g"], 1)),
        &file(module(["g", "f"], 2)),
        ".
  section code: 15 bytes on both sides
  custom section name: 14 bytes on both sides
    14 bytes on both sides; the first that differs is 0xa
    - 0x000000  01 0c 03 00 03 6c 6f 67 01 01 66 02 01 67        .....log..f..g
    + 0x000000  01 0c 03 00 03 6c 6f 67 01 01 67 02 01 66        .....log..g..f
  function 1 $f, 2 on the right
    8 bytes on both sides; instruction 2 is the first that differs
      0x000029  local 1 × i64
    - 0x00002b  i32.const 1
    + 0x000030  i32.const 2
      0x00002d  call 0 $log
      0x00002f  end",
    );
}

#[test]
fn parts_of_modules() {
    let left = "(module
        (import \"env\" \"f\" (func (param i32)))
        (import \"env\" \"old\" (func))
        (memory 1) (table 4 funcref)
        (global (mut i32) (i32.const 1))
        (func (export \"a\")) (func (export \"b\") nop)
        (elem (i32.const 0) func 2 3)
        (data (i32.const 8) \"build 2024\")
        (@custom \"version\" \"1\"))";
    let right = "(module
        (import \"env\" \"f\" (func (param i64)))
        (memory 2) (table 4 funcref)
        (global (mut i32) (i32.const 2))
        (func (export \"b\")) (func (export \"a\") nop)
        (elem (i32.const 1) func 1 2)
        (data (i32.const 8) \"build 2025\")
        (@custom \"version\" \"2\"))";
    let shown = difference(&file(module(left)), &file(module(right))).to_string();
    for line in [
        "  section memories: 3 bytes on both sides",
        "  custom section version: 1 bytes on both sides",
        "  import 0 $env.f",
        "    - (func (param i32))",
        "    + (func (param i64))",
        "  import 1 $env.old: only on the left",
        "  global 0",
        "    - mut i32 = i32.const 1",
        "    + mut i32 = i32.const 2",
        "  section exports: 9 bytes on both sides; the same, with other indices",
        "  function 3 $b, 1 on the right",
        "  element segment 0",
        "    - table 0 at i32.const 0",
        "    + table 0 at i32.const 1",
        "  data segment 0",
        "    10 bytes on both sides; the first that differs is 0x9",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
}

#[test]
fn a_damaged_module_is_shown_as_bytes() {
    let (whole, mut cut) = (module("(module (func))"), module("(module (func nop))"));
    cut.pop();
    let difference = difference(&file(&whole), &file(&cut));
    let Change::Content(Content::Bytes(bytes)) = &difference.entries[0].changes[0] else {
        panic!("{difference}")
    };
    let why = bytes.unread.as_deref().unwrap();
    assert!(why.starts_with("the right one cannot be read as a WebAssembly module: byte "), "{why}");
}

/// What was imported and is the module's own now, or is imported under another name, is not the same.
#[test]
fn imports_are_found_by_name_alone() {
    let module = |import: &str, own: &str| {
        let text = format!("(module {import} {own} (func $main call $f))");
        file(module(&text))
    };
    let check = |left: &Tree, right: &Tree, lines: &[&str]| {
        let shown = difference(left, right).to_string();
        for line in lines {
            assert!(shown.lines().any(|shown| shown == *line), "{line} is not in\n{shown}");
        }
    };
    let imported = |name: &str| module(&format!("(import \"env\" \"{name}\" (func $f))"), "");
    let own = module("", "(func $f)");
    let (gone, main) = ("  import 0 $env.one: only on the left", "  function 1 $main");
    check(&imported("one"), &imported("two"), &[gone, "  import 0 $env.two: only on the right", main]);
    check(&imported("one"), &own, &[gone, "  function 0 $f: only on the right", main]);
}

/// The same function, with a number that takes more bytes than it must.
#[test]
fn the_same_instructions_in_other_bytes_are_shown_as_bytes() {
    let whole = module("(module (func i32.const 1 drop))");
    let mut longer = whole.clone();
    let at = longer.iter().position(|byte| *byte == 0x41).unwrap();
    longer.splice(at + 1..at + 2, [0x81, 0x00]);
    // The lengths of function and section grow by one.
    longer[at - 2] += 1;
    longer[at - 4] += 1;
    let shown = difference(&file(&whole), &file(&longer)).to_string();
    let bytes = "function 0\n    5 and 6 bytes; the first that differs is 0x2\n";
    assert!(shown.contains(bytes), "{shown}");
}

/// A section whose length takes more bytes than it must is the same section.
#[test]
fn what_is_outside_of_all_parts_is_shown_as_bytes() {
    let whole = module("(module (func))");
    let mut longer = whole.clone();
    longer.splice(9..10, [whole[9] | 0x80, 0x00]);
    let shown = difference(&file(&whole), &file(&longer)).to_string();
    assert!(shown.starts_with(".\n  24 and 25 bytes; the first that differs is 0x9\n"), "{shown}");
}

#[test]
fn what_is_too_long_is_shown_as_bytes() {
    let blocks = "block ".repeat(4_000_000) + &"end ".repeat(4_000_000);
    let wat = |n: i32| format!("(module (func i32.const {n} drop {blocks}))");
    let shown = difference(&file(module(&wat(1))), &file(module(&wat(2)))).to_string();
    assert!(shown.contains("a function of 12000005 bytes; at most 7654321 are looked into"), "{shown}");
}

#[test]
fn sections_beyond_counting_are_counted() {
    let wat = |n: i32| format!("(module {})", format!("(@custom \"x\" \"{n}\")").repeat(1000));
    let shown = difference(&file(module(&wat(1))), &file(module(&wat(2)))).to_string();
    assert!(shown.ends_with("  … and 900 more sections that differ\n"), "{shown}");
}
