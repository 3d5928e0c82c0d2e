//! Hostile wasm: each ends in a clear error within its limits, and harms nothing.

use tests::Sandbox;

const WASI: &str = "wasi_snapshot_preview1";

/// A project with one derivation, which runs a module made of `body`.
fn sandbox(body: &str, limits: &str) -> Sandbox {
    module(wat::parse_str(format!("(module {body})")).expect("the test's own module"), limits)
}

fn module(wasm: Vec<u8>, limits: &str) -> Sandbox {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_assize"));
    sandbox.write("x.wasm", wasm).write(
        "build.jsonnet",
        format!(
            "local assize = import 'assize.libsonnet';
             assize.derivation({{
               name: 'x', inputs: {{ x: assize.source('x.wasm') }},
               steps: [{{ run: '/in/x', args: ['x'] }}], limits: {{ {limits} }},
             }})"
        ),
    );
    sandbox
}

/// Building fails with `code`, saying every text of `says`; afterwards the store is whole and
/// nothing is left in it but the source.
#[track_caller]
fn fails(sandbox: &Sandbox, code: i32, says: &[&str]) {
    let said = sandbox.fails(&["build"], code, says);
    assert!(said.err.contains("hint: "), "{}", said.err);
    sandbox.ok(["store", "verify"]);
    let left = std::fs::read_dir(sandbox.home().join("tmp")).expect("the store's tmp").count();
    assert_eq!(left, 0, "something is left in tmp/");
}

#[test]
fn loops_end_at_the_time_limit() {
    let sandbox =
        sandbox("(memory (export \"memory\") 1) (func (export \"_start\") (loop (br 0)))", "seconds: 1");
    fails(&sandbox, 101, &["took longer than 1 s"]);
}

#[test]
fn loops_in_a_start_function_end_too() {
    let sandbox = sandbox(
        "(memory (export \"memory\") 1) (func $s (loop (br 0))) (start $s) (func (export \"_start\"))",
        "seconds: 1",
    );
    fails(&sandbox, 101, &["took longer than 1 s"]);
}

#[test]
fn memory_bombs_end_at_the_memory_limit() {
    let sandbox = sandbox(
        "(memory (export \"memory\") 1)
         (func (export \"_start\") (loop (drop (memory.grow (i32.const 256))) (br 0)))",
        "memory: 64 * 1024 * 1024",
    );
    fails(&sandbox, 100, &["the memory limit of 67108864 bytes"]);
}

#[test]
fn a_memory_that_begins_too_large() {
    let sandbox =
        sandbox("(memory (export \"memory\") 65536) (func (export \"_start\"))", "memory: 64 * 1024 * 1024");
    fails(&sandbox, 100, &["the memory limit of 67108864 bytes"]);
}

#[test]
fn table_bombs_end_at_the_memory_limit() {
    let sandbox = sandbox(
        "(memory (export \"memory\") 1) (table $t 1 funcref)
         (func (export \"_start\")
           (loop (drop (table.grow $t (ref.null func) (i32.const 1000000))) (br 0)))",
        "memory: 64 * 1024 * 1024",
    );
    fails(&sandbox, 100, &["the memory limit of 67108864 bytes"]);
}

#[test]
fn deep_recursion_is_a_trap_with_a_backtrace() {
    let sandbox = sandbox(
        "(memory (export \"memory\") 1)
         (func $deep (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))
         (func (export \"_start\") (drop (call $deep (i32.const 1))))",
        "",
    );
    fails(&sandbox, 100, &["trapped", "call stack exhausted", "deep"]);
}

#[test]
fn traps_name_their_function() {
    let sandbox = sandbox(
        "(memory (export \"memory\") 1)
         (func $careless (unreachable)) (func (export \"_start\") (call $careless))",
        "",
    );
    fails(&sandbox, 100, &["step 1 (`x`) trapped", "unreachable", "careless"]);
}

#[test]
fn stdout_bombs_end_at_the_log_limit() {
    let sandbox = sandbox(
        &format!(
            "(import \"{WASI}\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
             (memory (export \"memory\") 2)
             (data (i32.const 0) \"\\10\\00\\00\\00\\00\\80\\00\\00\")
             (func (export \"_start\")
               (loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0)))"
        ),
        "",
    );
    sandbox.configure("{ limits: { log: 1000000 } }");
    fails(&sandbox, 100, &["the log limit of 1000000 bytes"]);
    let log = sandbox.command(["log", ".", "--raw"]).output().expect("the program starts");
    assert!(log.status.success(), "{}", String::from_utf8_lossy(&log.stderr));
    assert!((900_000..=1_000_000).contains(&log.stdout.len()), "{} bytes", log.stdout.len());
}

/// Opens `/build/f` for writing as descriptor 4, and has a buffer of 32 KiB at address 16.
fn with_file(body: &str) -> String {
    format!(
        "(import \"{WASI}\" \"path_open\"
           (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
         (import \"{WASI}\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
         (import \"{WASI}\" \"fd_filestat_set_size\" (func $resize (param i32 i64) (result i32)))
         (memory (export \"memory\") 2)
         (data (i32.const 0) \"\\10\\00\\00\\00\\00\\80\\00\\00\")
         (data (i32.const 65536) \"build/f\")
         (func (export \"_start\")
           (drop (call $open (i32.const 3) (i32.const 0) (i32.const 65536) (i32.const 7) (i32.const 1)
                             (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 8)))
           {body})"
    )
}

#[test]
fn file_bombs_end_at_the_disk_limit() {
    let body = with_file(
        "(loop (drop (call $write (i32.const 4) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))",
    );
    fails(&sandbox(&body, "disk: 10000000"), 100, &["the disk limit of 10000000 bytes"]);
}

#[test]
fn sparse_files_count_with_their_length() {
    let body = with_file("(drop (call $resize (i32.const 4) (i64.const 1000000000000)))");
    fails(&sandbox(&body, "disk: 10000000"), 100, &["the disk limit of 10000000 bytes"]);
}

#[test]
fn many_files_end_at_the_file_limit() {
    // Makes `build/0`, `build/1`, … by counting in the four bytes of the name's end.
    let body = format!(
        "(import \"{WASI}\" \"path_create_directory\" (func $make (param i32 i32 i32) (result i32)))
         (memory (export \"memory\") 1)
         (data (i32.const 0) \"build/AAAA\")
         (func (export \"_start\")
           (loop
             (drop (call $make (i32.const 3) (i32.const 0) (i32.const 10)))
             (i32.store (i32.const 6)
               (i32.or (i32.const 0x40404040)
                 (i32.and (i32.const 0x0f0f0f0f) (i32.add (i32.load (i32.const 6)) (i32.const 0x31313131)))))
             (i32.store8 (i32.const 6) (i32.add (i32.load8_u (i32.const 6)) (i32.const 1)))
             (br 0)))"
    );
    let sandbox = sandbox(&body, "seconds: 30");
    sandbox.configure("{ limits: { files: 10 } }");
    fails(&sandbox, 100, &["the limit of 10 files"]);
}

#[test]
fn ten_megabytes_of_locals_are_refused() {
    // 600 declarations of 2^24 locals each, which no text format would write.
    let mut body = vec![];
    leb(&mut body, 600);
    for _ in 0..600 {
        leb(&mut body, 1 << 24);
        body.push(0x7f);
    }
    body.push(0x0b);
    let sandbox = module(with_code(&body), "");
    fails(&sandbox, 100, &["cannot be used", "locals"]);
}

#[test]
fn many_real_locals_are_refused() {
    let mut body = vec![];
    leb(&mut body, 5_000_000);
    for _ in 0..5_000_000 {
        body.extend([1, 0x7f]);
    }
    body.push(0x0b);
    let sandbox = module(with_code(&body), "");
    fails(&sandbox, 100, &["cannot be used"]);
}

fn leb(to: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

/// A module with `_start`, `memory` and that one function body.
fn with_code(body: &[u8]) -> Vec<u8> {
    let mut wasm = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01".to_vec();
    wasm.extend(b"\x07\x13\x02\x06_start\0\0\x06memory\x02\0");
    let mut code = vec![1];
    leb(&mut code, body.len() as u32);
    code.extend(body);
    wasm.push(10);
    leb(&mut wasm, code.len() as u32);
    wasm.extend(code);
    wasm
}

#[test]
fn what_is_no_command_module_is_refused_by_name() {
    let refused = |wasm: Vec<u8>, why: &str| fails(&module(wasm, ""), 100, &[why]);
    refused(b"#!/bin/sh\nrm -rf /\n".to_vec(), "not a wasm module");
    refused(vec![], "not a wasm module");
    refused(b"\0asm\x0d\0\x01\0".to_vec(), "a component");
    refused(b"\0asm\x01\0\0\0\xff\xff\xff".to_vec(), "cannot be used");
    let text = |body: &str| wat::parse_str(format!("(module {body})")).expect("the test's own module");
    refused(text("(import \"env\" \"fork\" (func))"), "it imports `env` `fork`");
    refused(
        text(&format!("(import \"{WASI}\" \"thread_spawn\" (func))")),
        "it imports `wasi_snapshot_preview1` `thread_spawn`",
    );
    refused(text("(memory (export \"memory\") 1 1 shared)"), "shared memory");
    refused(text("(memory (export \"memory\") 1)"), "it does not export `_start`");
    refused(text("(func (export \"_start\"))"), "it does not export `memory`");
    refused(
        text("(memory (export \"memory\") 1) (func (export \"_start\") (i32.const 1))"),
        "cannot be used",
    );
}

#[test]
fn pointers_outside_of_memory_are_an_error_for_the_guest() {
    let body = format!(
        "(import \"{WASI}\" \"random_get\" (func $random (param i32 i32) (result i32)))
         (import \"{WASI}\" \"proc_exit\" (func $exit (param i32)))
         (memory (export \"memory\") 1)
         (func (export \"_start\")
           (call $exit (call $random (i32.const 0xfffffff0) (i32.const 0xfffffff0))))"
    );
    // 21 is EFAULT.
    fails(&sandbox(&body, ""), 100, &["exited with code 21"]);
}

#[test]
fn a_killed_worker_is_an_error_and_nothing_is_left() {
    let sandbox =
        sandbox("(memory (export \"memory\") 1) (func (export \"_start\") (loop (br 0)))", "seconds: 60");
    let mut child = sandbox.command(["build"]).spawn().expect("the program starts");
    let worker = loop {
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).expect("a process");
        let all: Vec<String> = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
            .chain(std::fs::read_to_string(children))
            .flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let is_build = |pid: &String| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(b"worker\0build\0"))
        };
        if let Some(pid) = all.into_iter().find(is_build) {
            break pid;
        }
        assert!(child.try_wait().expect("a process").is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    let killed = std::process::Command::new("kill").args(["-9", &worker]).status();
    assert!(killed.expect("kill runs").success());
    let output = child.wait_with_output().expect("a process");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(100), "{err}");
    assert!(err.contains("ended without an answer"), "{err}");
    sandbox.ok(["store", "verify"]);
}

#[test]
fn hard_links_do_not_multiply_beyond_the_disk_limit() {
    // `/out/AAAA` with 400 kB, and 300 names for it: 120 MB as an archive.
    let body = format!(
        "(import \"{WASI}\" \"path_open\"
           (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
         (import \"{WASI}\" \"fd_filestat_set_size\" (func $resize (param i32 i64) (result i32)))
         (import \"{WASI}\" \"path_link\"
           (func $link (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
         (memory (export \"memory\") 1)
         (data (i32.const 0) \"out/AAAA\") (data (i32.const 16) \"out/BAAA\")
         (func (export \"_start\") (local $n i32)
           (drop (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 1)
                             (i64.const -1) (i64.const -1) (i32.const 0) (i32.const 32)))
           (drop (call $resize (i32.const 4) (i64.const 400000)))
           (loop
             (i32.store8 (i32.const 21) (i32.add (i32.const 65) (i32.rem_u (local.get $n) (i32.const 20))))
             (i32.store8 (i32.const 22) (i32.add (i32.const 65) (i32.div_u (local.get $n) (i32.const 20))))
             (drop (call $link (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 8)
                               (i32.const 3) (i32.const 16) (i32.const 8)))
             (local.set $n (i32.add (local.get $n) (i32.const 1)))
             (br_if 0 (i32.lt_u (local.get $n) (i32.const 300)))))"
    );
    fails(&sandbox(&body, "disk: 1000000"), 100, &["beyond the disk limit"]);
}

#[test]
fn clocks_and_cookies_at_their_ends() {
    let body = format!(
        "(import \"{WASI}\" \"poll_oneoff\" (func $poll (param i32 i32 i32 i32) (result i32)))
         (import \"{WASI}\" \"clock_time_get\" (func $clock (param i32 i64 i32) (result i32)))
         (import \"{WASI}\" \"fd_readdir\" (func $list (param i32 i32 i32 i64 i32) (result i32)))
         (import \"{WASI}\" \"proc_exit\" (func $exit (param i32)))
         (memory (export \"memory\") 1)
         (func $wait
           (i32.store (i32.const 16) (i32.const 1))
           (i64.store (i32.const 24) (i64.const -1))
           (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))
           (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 136))))
         (func $begin (call $wait) (call $wait)
           (if (i64.ne (i64.load (i32.const 136)) (i64.const 0x4000000000000000)) (then (call $exit (i32.const 1))))
           (drop (call $list (i32.const 3) (i32.const 256) (i32.const 256) (i64.const -1) (i32.const 144)))
           (if (i32.load (i32.const 144)) (then (call $exit (i32.const 2))))
           ;; Ending well before `_start` is ending well.
           (call $exit (i32.const 0)))
         (start $begin)
         (func (export \"_start\") (unreachable))"
    );
    sandbox(&body, "").ok(["build"]);
}
