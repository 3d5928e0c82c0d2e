//! What it costs to say where two outputs differ: time, and memory beside the outputs themselves.
//!
//! ```text
//! cargo bench --workspace --profile dev --bench difference [-- NAME...]
//! ```

use std::{
    fs,
    hint::black_box,
    time::{Duration, Instant},
};

use node::difference::{self, Difference};
use protocol::nar::{Writer, dump_file};

/// What is compared, in words, and the archives.
type Bench = (&'static str, fn() -> Pair);

/// Two archives.
type Pair = (Vec<u8>, Vec<u8>);

const BENCHES: &[Bench] = &[
    ("one instruction of 100 MB, with names", || modules(NAMED, &|n| i32::from(n == LAST), 0)),
    ("one instruction of 100 MB, without names", || modules(UNNAMED, &|n| i32::from(n == LAST), 0)),
    ("a function inserted into 100 MB, with names", || modules(NAMED, &|_| 0, 1)),
    ("a function inserted into 100 MB, without names", || modules(UNNAMED, &|_| 0, 1)),
    ("every function of 100 MB", || modules(UNNAMED, &|n| n as i32 + 1, 0)),
    ("a million functions of one instruction", || tiny(1_000_000)),
    ("a million lines, all of them", || texts(&|n| format!("left {n}\n"), &|n| format!("right {n}\n"))),
    ("a million lines, every second", || {
        texts(&|n| format!("{}\n", 2 * n), &|n| format!("{}\n", 2 * n + n % 2))
    }),
    ("a million lines, ten different ones", || {
        texts(&|n| format!("{}\n", n * n % 10), &|n| format!("{}\n", n * n / 7 % 10))
    }),
    ("one byte of 1 GiB", || (zeros(1 << 30, 0), zeros(1 << 30, 1))),
    ("four million entries", || (entries(0), entries(1))),
];

fn main() {
    // Cargo adds `--bench`.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    for (name, make) in BENCHES {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            let (left, right) = make();
            let (found, time, memory) = measured(&left, &right);
            let (json, text) = (serde_json::to_string(&found).unwrap().len(), found.to_string().len());
            println!("{name}: {time:.2?}, {memory} MiB; {json} bytes of JSON, {text} of text");
            black_box(found);
        }
    }
}

/// The difference, the time it took, and the most memory above what was there before.
fn measured(left: &[u8], right: &[u8]) -> (Difference, Duration, u64) {
    // What the kernel knows as the peak begins anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak();
    let begun = Instant::now();
    let found = difference::compare(left, right).unwrap();
    (found, begun.elapsed(), peak() - before)
}

/// In MiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() >> 10
}

fn archive(content: &[u8]) -> Vec<u8> {
    dump_file(Vec::new(), false, content.len() as u64, content).unwrap()
}

const NAMED: bool = true;
const UNNAMED: bool = false;

/// Functions of a module of 100 MB, of 2 KB each.
const FUNCTIONS: u32 = 50_000;
const LAST: u32 = FUNCTIONS - 1;

/// A module of many functions each of which calls the next, and another; `changed` is in the middle of
/// every function of the second, before which `inserted` functions are inserted.
fn modules(named: bool, changed: &dyn Fn(u32) -> i32, inserted: u32) -> Pair {
    let module = |inserted: u32, changed: &dyn Fn(u32) -> i32| {
        let body = |n: u32| {
            let mut body = vec![0];
            for i in 0..360 {
                let constant = if i == 180 { changed(n) } else { (n * 7 + i) as i32 };
                body.extend([&[0x41][..], &leb(constant as u32 & 0x1f_ffff), &[0x1a]].concat());
            }
            body.extend([&[0x10][..], &leb((n + 1) % FUNCTIONS + inserted), &[0x0b]].concat());
            body
        };
        let new = (0..inserted).map(|_| (String::from("new"), vec![0, 0x01, 0x0b]));
        let old = (0..FUNCTIONS).map(|n| (format!("some::module::of::a::program::function_{n}"), body(n)));
        assemble(new.chain(old), named)
    };
    (module(0, &|_| 0), module(inserted, changed))
}

fn tiny(functions: u32) -> Pair {
    let module = |shift: u32| {
        let body = |n: u32| {
            [
                &[0, 0x10][..],
                &leb(((u64::from(n) * 7919 + u64::from(shift)) % u64::from(functions)) as u32),
                &[0x0b],
            ]
            .concat()
        };
        assemble((0..functions).map(|n| (format!("{n}{}", (n + shift) % 2), body(n))), NAMED)
    };
    (module(0), module(1))
}

/// The archive of a module with functions of the type `func ()`.
fn assemble(functions: impl Iterator<Item = (String, Vec<u8>)>, named: bool) -> Vec<u8> {
    let (mut code, mut names, mut count) = (Vec::new(), Vec::new(), 0);
    for (name, body) in functions {
        code.extend([leb(body.len() as u32), body].concat());
        names.extend([leb(count), leb(name.len() as u32), name.into_bytes()].concat());
        count += 1;
    }
    let section = |id: u8, content: &[u8]| [&[id][..], &leb(content.len() as u32), content].concat();
    let mut module = [&b"\0asm\x01\0\0\0"[..], &section(1, &[1, 0x60, 0, 0])].concat();
    module.extend(section(3, &[leb(count), vec![0; count as usize]].concat()));
    module.extend(section(10, &[leb(count), code].concat()));
    if named {
        let names = section(1, &[leb(count), names].concat());
        module.extend(section(0, &[&b"\x04name"[..], &names].concat()));
    }
    archive(&module)
}

fn leb(mut n: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    // A number with its sign: the last byte must not have the bit of the sign.
    if n & 0x40 != 0 {
        let last = bytes.len() - 1;
        bytes[last] |= 0x80;
        bytes.push(0);
    }
    bytes
}

fn texts(left: &dyn Fn(u64) -> String, right: &dyn Fn(u64) -> String) -> Pair {
    let text =
        |line: &dyn Fn(u64) -> String| archive((0..1_000_000).map(line).collect::<String>().as_bytes());
    (text(left), text(right))
}

fn zeros(size: usize, last: u8) -> Vec<u8> {
    let mut content = vec![0; size];
    content[size - 1] = last;
    archive(&content)
}

/// An archive of as many empty files and directories as there may be.
fn entries(last: u8) -> Vec<u8> {
    let mut to = Writer::new(Vec::with_capacity(1 << 30));
    to.directory().unwrap();
    for n in 0..protocol::limits::NAR_NODES - 2 {
        to.entry(format!("{n:07}").as_bytes()).unwrap();
        to.directory().unwrap();
        to.end().unwrap();
    }
    to.entry(b"z").unwrap();
    to.file(false, 1, &[last][..]).unwrap();
    to.end().unwrap();
    to.finish().unwrap()
}
