//! Assembling and printing, by bytes known from the specification and by going round.

use std::fs;

use assembler::{assemble, run};
use proptest::prelude::*;
use stage0::command::Failure;

/// A function that adds, in text.
const ADD: &str = "(module
  (func (export \"add\") (param i32 i32) (result i32)
    local.get 0
    local.get 1
    i32.add))
";

/// The same, in binary.
const ADD_BINARY: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x07\x01\x60\x02\x7f\x7f\x01\x7f\
    \x03\x02\x01\0\
    \x07\x07\x01\x03add\0\0\
    \x0a\x09\x01\x07\0\x20\0\x20\x01\x6a\x0b";

#[test]
fn text_becomes_binary() {
    assert_eq!(assemble(ADD).unwrap(), ADD_BINARY);
    assert_eq!(assemble("(module)").unwrap(), b"\0asm\x01\0\0\0");
    let bare =
        "(func (export \"add\") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add)";
    assert_eq!(assemble(bare).unwrap(), ADD_BINARY);
    let named = assemble("(module (func $f))").unwrap();
    assert!(named.windows(4).any(|bytes| bytes == b"name"));
}

#[test]
fn features_of_the_execution_environment_are_known() {
    for text in [
        "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func (param i32))))",
        "(module (func (result v128) v128.const i32x4 1 2 3 4))",
        "(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))",
        "(module (func (result funcref) ref.null func))",
        "(module (tag) (func throw 0))",
        "(module (func (result i32 i32) i32.const 1 i32.const 2))",
        "(module (func $f return_call $f))",
        "(module (@custom \"note\" \"text\"))",
    ] {
        assemble(text).unwrap();
    }
}

#[test]
fn errors_have_a_place() {
    fails("(module\n  (func $f\n    i32.ad))", 3, 5);
    fails("(module\n  (func call $g))", 2, 14);
    fails("(module", 1, 8);
    fails("(module))", 1, 9);
    fails("(module (func i32.const x))", 1, 25);
    fails("(module \"", 1, 10);
    fails("", 1, 1);
    fails("\n\n(component)", 3, 2);
    fails(&"(".repeat(100_000), 1, 2);
    fails(
        &("(module (func ".to_owned() + &"(block ".repeat(100_000)),
        1,
        700_015,
    );
}

#[track_caller]
fn fails(text: &str, line: usize, column: usize) {
    let error = assemble(text).unwrap_err();
    assert_eq!((error.line, error.column), (line, column), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn the_command_line_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let run = |words: &[&str]| {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        run(&words).map_err(|failure| match failure {
            Failure::Usage(_) => "usage".to_owned(),
            Failure::Failed(message) => message.replace(dir.path().to_str().unwrap(), "@"),
        })
    };
    fs::write(at("add.wat"), ADD).unwrap();
    fs::write(at("bad.wat"), "(module\n  oops)").unwrap();
    fs::write(at("bytes.wat"), b"\xff").unwrap();
    run(&[&at("add.wat"), &at("new/add.wasm")]).unwrap();
    assert_eq!(fs::read(at("new/add.wasm")).unwrap(), ADD_BINARY);
    run(&["--print", &at("new/add.wasm"), &at("again.wat")]).unwrap();
    run(&[&at("again.wat"), &at("again.wasm")]).unwrap();
    assert_eq!(fs::read(at("again.wasm")).unwrap(), ADD_BINARY);

    let message = run(&[&at("bad.wat"), &at("x")]).unwrap_err();
    assert!(message.starts_with("@/bad.wat:2:3: "), "{message}");
    let message = run(&[&at("bytes.wat"), &at("x")]).unwrap_err();
    assert_eq!(message, "@/bytes.wat: not UTF-8");
    let message = run(&[&at("none.wat"), &at("x")]).unwrap_err();
    assert_eq!(message, "@/none.wat: no such file");
    let message = run(&["--print", &at("add.wat"), &at("x")]).unwrap_err();
    assert!(message.starts_with("@/add.wat: "), "{message}");
    assert!(!dir.path().join("x").exists());
    for words in [
        &[][..],
        &["a"],
        &["a", "b", "c"],
        &["--print", "a"],
        &["--help", "a"],
    ] {
        assert_eq!(run(words).unwrap_err(), "usage", "{words:?}");
    }
}

proptest! {
    /// Whatever is assembled can be printed and assembled again, to the same; and nothing panics.
    #[test]
    fn printing_is_undone_by_assembling(pieces in prop::collection::vec(prop::sample::select(vec![
        "(", ")", "(func", "(param i32)", "(result i64)", "(local f32)", "$a", "$b", "nop", "drop",
        "i32.const", "1", "-0x1p3", "nan:0x1", "(memory 1)", "(data \"x\\00\")", "(table 1 funcref)",
        "(global i32 (i32.const 1))", "(export \"e\"", "(import \"m\" \"n\"", "call", "0", "(block",
        "br_table", "(type", "(elem", "(start 0)", "(if", "(then", "else", "end", "block", ";;", "\"",
    ]), 0..10)) {
        let text = format!("(module {})", pieces.join(" "));
        if let Ok(binary) = assemble(&text) {
            // What is not valid need not be printable.
            if let Ok(printed) = wasmprinter::print_bytes(&binary) {
                prop_assert_eq!(assemble(&printed), Ok(binary), "{}", printed);
            }
        }
    }

    #[test]
    fn no_binary_breaks_the_printer(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut binary = ADD_BINARY.to_vec();
        let at = at.index(binary.len());
        binary[at] = byte;
        let _ = wasmprinter::print_bytes(&binary);
    }
}
