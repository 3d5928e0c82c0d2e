//! Hostile Jsonnet: whatever the text is, the caller gets a clean error, in time and in little memory.
//!
//! The evaluations run in real worker processes: this test is its own worker, which is why it has
//! no harness.

use std::{
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use node::eval::{EvalError, EvalLimits, Evaluation, Fault, Mode, PackFailed, Request, evaluate, worker};
use protocol::{glob::Glob, id::NarHash};

/// What every case may use; the time is what the endless ones take.
fn limits() -> EvalLimits {
    EvalLimits { time: Duration::from_secs(5), memory: 1 << 30, answer: 8 << 20 }
}

/// What ending a worker may take on a busy machine, and parsing one file (10 s) as well.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args == ["worker", "evaluate"] {
        return worker(pack);
    }
    let only = args.iter().find(|a| !a.starts_with('-'));
    let mut failed = 0;
    for case in cases() {
        if only.is_some_and(|only| !case.name.contains(only.as_str())) {
            continue;
        }
        match check(&case) {
            Ok(report) => println!("test {} ... ok ({report})", case.name),
            Err(why) => {
                failed += 1;
                println!("test {} ... FAILED: {why}", case.name);
            }
        }
    }
    for (name, test) in TESTS {
        if only.is_none_or(|only| name.contains(only.as_str())) {
            test();
            println!("test {name} ... ok");
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Nothing here is built, so every source is the same.
fn pack(_: &Path, _: &[Glob]) -> Result<NarHash, PackFailed> {
    Ok(NarHash::of(b""))
}

struct Case {
    name: &'static str,
    text: String,
    /// Whether the fault is the right one.
    expected: fn(&Fault) -> bool,
    /// Whether the error must name a line.
    placed: bool,
}

fn case(name: &'static str, text: impl Into<String>, expected: fn(&Fault) -> bool) -> Case {
    Case { name, text: text.into(), expected, placed: true }
}

/// A case in which no line is known, because the worker died or the value as a whole is meant.
fn anywhere(name: &'static str, text: impl Into<String>, expected: fn(&Fault) -> bool) -> Case {
    Case { placed: false, ..case(name, text, expected) }
}

fn too_deep(fault: &Fault) -> bool {
    matches!(fault, Fault::TooDeep { .. })
}

fn syntax(fault: &Fault) -> bool {
    matches!(fault, Fault::Parse { .. })
}

fn slow(fault: &Fault) -> bool {
    matches!(fault, Fault::SlowToParse { .. } | Fault::TimedOut { doing: Some(_), .. })
}

fn endless(fault: &Fault) -> bool {
    matches!(fault, Fault::TimedOut { .. } | Fault::OutOfMemory { .. })
}

fn recursion(fault: &Fault) -> bool {
    matches!(fault, Fault::InfiniteRecursion { .. } | Fault::CallsTooDeep { .. })
}

fn exhausted(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::OutOfMemory { .. }
            | Fault::StackOverflow { .. }
            | Fault::TimedOut { .. }
            | Fault::CallsTooDeep { .. }
    )
}

fn runtime(fault: &Fault) -> bool {
    matches!(fault, Fault::Runtime { .. })
}

fn import(fault: &Fault) -> bool {
    matches!(fault, Fault::Import { .. })
}

fn panicked(fault: &Fault) -> bool {
    matches!(fault, Fault::Panicked { .. })
}

const BUILD: &str = "local a = import 'assize.libsonnet'; ";

fn cases() -> Vec<Case> {
    let n = 100_000;
    let nested = |open: &str, inner: &str, close: &str, n: usize| {
        format!("{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    vec![
        // The parser.
        case("open brackets", "[".repeat(n), too_deep),
        case("nested arrays", nested("[", "1", "]", n), too_deep),
        case("nested parentheses", nested("(", "1", ")", n), too_deep),
        case("nested objects", nested("{a:", "1", "}", n), too_deep),
        case("nested calls", nested("std.abs(", "1", ")", n), too_deep),
        case("nested indexes", nested("a[", "1", "]", n), too_deep),
        case("nested functions", format!("{}1", "function(x) ".repeat(n)), too_deep),
        case("unary chain", format!("{}1", "-".repeat(n)), too_deep),
        case("unary chain with blanks", format!("{}1", "! /* */ ".repeat(n)), too_deep),
        case("sum", format!("1{}", "+1".repeat(n)), too_deep),
        case("mixed operators", format!("1{}", "*1-1".repeat(n)), too_deep),
        case("call chain", format!("a{}", "()".repeat(n)), too_deep),
        case("extension chain", format!("a{}", "{}".repeat(n)), too_deep),
        case("slice chain", format!("a{}", "[1:]".repeat(n)), too_deep),
        case("if chain", format!("{}1", "if a then ".repeat(n)), too_deep),
        case("else chain", format!("{}1", "if a then b else ".repeat(n)), too_deep),
        case("local chain", format!("{}1", "local a = 1; ".repeat(n)), too_deep),
        case("nested locals", format!("{}1{}", "local a = ".repeat(n), "; a".repeat(n)), too_deep),
        case("assert chain", format!("{}1", "assert true; ".repeat(n)), too_deep),
        case("error chain", format!("{}1", "error ".repeat(n)), too_deep),
        case("import chain", format!("{}'a'", "import ".repeat(n)), too_deep),
        case("hidden by text block", format!("||| /**/\n  '\n||| + {}", "[".repeat(n)), syntax),
        case("hidden by comment", format!("/* [ */ {}", "[".repeat(n)), too_deep),
        case("hidden by string", format!("@'\\' + {}", "[".repeat(n)), too_deep),
        // Where it is wrong is known if the parser is fast enough.
        anywhere("most brackets allowed", nested("[", "1 1", "]", 12), |f| syntax(f) || slow(f)),
        anywhere("backtracking", nested("[", "1 1", "]", 400), slow),
        anywhere("nested comprehensions", nested("[", "1", " for a in b]", 60), slow),
        case("wrong bracket", "{ a: [1, 2 }", syntax),
        case("zeros", "\0\0\0", syntax),
        case("unfinished string", "{ a: 'b }", syntax),
        // The evaluator: recursion.
        anywhere("self", "local a = a; a", recursion),
        case("mutual", "{ a: $.b, b: $.a }", recursion),
        case("array of itself", "{ a: local a = [a]; std.toString(a) }", |f| recursion(f) || exhausted(f)),
        case("endless call", "{ a: local f(n) = f(n + 1); f(0) }", recursion),
        anywhere("endless call with values", "{ a: local f(n) = { b: f(n + 1).b }; f(0).b }", exhausted),
        anywhere("endless tail call", "local f(n) = f(n + 1) tailstrict; f(0)", |f| {
            recursion(f) || endless(f)
        }),
        anywhere(
            "calls inside long sums",
            format!("local f(n) = f(n - 1){}; f(0)", " + 1".repeat(9_000)),
            |f| recursion(f) || exhausted(f),
        ),
        case("two calls each", "{ a: local f(n) = f(n - 1) + f(n - 1); f(1e9) }", recursion),
        anywhere("exponential", "local f(n) = if n == 0 then 0 else f(n - 1) + f(n - 1); f(60)", endless),
        anywhere("endless loop", "std.foldl(function(a, b) a + b, std.range(0, 2000000000), 0)", endless),
        case("endless import", "{ a: import 'build.jsonnet' }.a.a.a", |f| recursion(f) || runtime(f)),
        anywhere(
            "deep value",
            "local f(n) = std.foldl(function(a, b) [a], std.range(1, n), 0); f(200000)",
            |f| too_deep(f) || exhausted(f),
        ),
        anywhere(
            "deep equality",
            "local f(n) = std.foldl(function(a, b) [a], std.range(1, n), 0); f(3000000) == f(3000000)",
            exhausted,
        ),
        anywhere(
            "deep object",
            "local f(n) = std.foldl(function(a, b) a { x+: 1 }, std.range(1, n), { x: 1 }); f(3000000)",
            exhausted,
        ),
        anywhere(
            "deep text",
            "std.length(std.foldl(function(a, b) a + 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', std.range(1, 8000000), ''))",
            exhausted,
        ),
        // The evaluator: size.
        anywhere(
            "doubling text",
            "local f(n) = if n == 0 then 'x' else local a = f(n - 1); a + a; f(60)",
            |f| exhausted(f) || panicked(f),
        ),
        anywhere(
            "long array",
            "std.length(std.map(function(x) [x], std.makeArray(1000000000, function(i) i)))",
            |f| exhausted(f) || panicked(f),
        ),
        anywhere("long text", "'x' * 1e18", |f| exhausted(f) || panicked(f)),
        anywhere("longer text", "'xyz' * 1e19", |f| exhausted(f) || panicked(f)),
        anywhere("wide format", "'%1000000000d' % 5 * 1e9", |f| exhausted(f) || panicked(f)),
        anywhere("repeat", "std.repeat([1], 1e11)", |f| runtime(f) || exhausted(f)),
        anywhere("range", "std.range(0, 4e9)", |f| runtime(f) || exhausted(f)),
        anywhere(
            "deep JSON",
            "std.parseJson(std.foldl(function(a, b) a + '[', std.range(1, 200000), ''))",
            runtime,
        ),
        anywhere(
            "many aliases in YAML",
            "std.parseYaml(std.join('\\n', ['a: &a [x,x,x,x,x,x,x,x,x]'] + ['%s: &%s [%s]' % [std.char(98 + i), std.char(98 + i), std.join(',', std.repeat(['*' + std.char(97 + i)], 9))] for i in std.range(0, 20)]))",
            |f| exhausted(f) || runtime(f) || panicked(f),
        ),
        anywhere("long answer", "std.repeat('x', 9000000)", |f| matches!(f, Fault::AnswerTooLong { .. })),
        anywhere(
            "many traces",
            "std.foldl(function(a, b) std.trace(std.repeat('x', 10000), a), std.range(0, 1000000000), 0)",
            endless,
        ),
        // The way out.
        case("absolute import", "{ a: import '/etc/passwd' }", import),
        case("import of a parent", "{ a: importstr '../../../../../etc/passwd' }", import),
        case("import of a device", "{ a: importbin '/dev/zero' }", import),
        case("import of a symlink", "{ a: importstr 'passwd' }", import),
        case("import through a symlink", "{ a: importstr 'etc/passwd' }", import),
        case("import of a FIFO", "{ a: importstr 'fifo' }", import),
        case("import with a NUL", "{ a: importstr 'a\\u0000b' }", import),
        case("long import", format!("{{ a: import '{}' }}", "x/".repeat(10_000)), import),
        case("computed import", "{ a: import ('a' + 'b') }", runtime),
        case("environment", "{ a: std.extVar('HOME') }", runtime),
        case("source of a parent", format!("{BUILD}{{ a: a.source('..').nar }}"), |f| {
            matches!(f, Fault::Source { .. })
        }),
        // The library.
        case(
            "derivation that needs itself",
            format!(
                "{BUILD}{{ a: a.derivation({{ name: 'a', steps: [{{ run: '/build/a' }}], inputs: {{ a: $.a }} }}) }}"
            ),
            |f| matches!(f, Fault::Cycle { .. }),
        ),
        case(
            "endless inputs",
            format!(
                "{BUILD}local d(n) = a.derivation({{ name: 'd' + n, steps: [{{ run: '/build/a' }}], inputs: {{ a: d(n + 1) }} }}); {{ a: d(0) }}"
            ),
            too_deep,
        ),
        case(
            "deep document",
            format!(
                "{BUILD}local deep = std.foldl(function(a, b) [a], std.range(1, 5000), 0); {{ a: a.derivation({{ name: 'a', steps: [], stdin: {{ a: deep }} }}) }}"
            ),
            |f| too_deep(f) || runtime(f) || matches!(f, Fault::CallsTooDeep { .. }),
        ),
        case(
            "many steps",
            format!(
                "{BUILD}{{ a: a.derivation({{ name: 'a', steps: std.makeArray(5000, function(i) {{ run: '/build/a' }}) }}) }}"
            ),
            |f| matches!(f, Fault::Derivation { .. }),
        ),
        case(
            "long derivation",
            format!(
                "{BUILD}{{ a: a.derivation({{ name: 'a', steps: [{{ run: '/build/a', args: [std.repeat('x', 5000000)] }}] }}) }}"
            ),
            |f| matches!(f, Fault::Derivation { .. }),
        ),
        case(
            "forged handle",
            format!(
                "{BUILD}{{ a: a.derivation({{ name: 'a', steps: [], inputs: {{ a: {{ '$assize':: error 'x', drv: 'drv:aa' }} }} }}) }}"
            ),
            |_| true,
        ),
    ]
}

fn project(text: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a directory for the test");
    fs::write(root.path().join("build.jsonnet"), text).expect("a file");
    std::os::unix::fs::symlink("/etc/passwd", root.path().join("passwd")).expect("a symlink");
    std::os::unix::fs::symlink("/etc", root.path().join("etc")).expect("a symlink");
    let fifo = root.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a FIFO");
    root
}

fn run(
    root: &Path,
    attribute: Option<&str>,
    mode: Mode,
    on_trace: impl FnMut(&str),
) -> Result<Evaluation, EvalError> {
    let root = fs::canonicalize(root).expect("the directory is there");
    let attribute = attribute.map(str::to_owned);
    let request = Request { root, file: "build.jsonnet".into(), attribute, mode };
    let exe = std::env::current_exe().expect("this program has a path");
    evaluate(&exe, &request, &limits(), on_trace)
}

fn check(case: &Case) -> Result<String, String> {
    let root = project(&case.text);
    let attribute = case.text.contains("{ a: ").then_some("a");
    let start = Instant::now();
    let result = run(root.path(), attribute, Mode::Json, |_| {});
    let took = start.elapsed();
    let error = match result {
        Err(error) => error,
        Ok(_) => return Err("it was evaluated".into()),
    };
    let text = error.to_string();
    let short: String = text.chars().take(110).collect();
    let report = format!("{:.1} s: {short}", took.as_secs_f64());
    let escapes = text.contains(|c: char| c.is_control() && c != '\n' && c != '\t');
    let leaks = text.contains(&*root.path().to_string_lossy());
    let placed = error.at.as_ref().is_some_and(|at| at.line > 0) || !case.placed;
    match () {
        () if !(case.expected)(&error.fault) => Err(format!("another fault: {report}")),
        () if took > PATIENCE => Err(format!("too slow: {report}")),
        () if escapes || leaks => Err(format!("control characters or a path of this machine: {report}")),
        () if !placed => Err(format!("no line: {report}")),
        () => Ok(report),
    }
}

const TESTS: &[(&str, fn())] = &[
    ("good text through the worker", good),
    ("what std.trace is given arrives", traces),
    ("the worker that is not there", no_worker),
    ("deep and wide but allowed", allowed),
    ("a chain of derivations is as long as one likes", long_chain),
];

fn good() {
    let root = project(&format!(
        "{BUILD}{{ a: a.derivation({{ name: 'a', steps: [{{ run: '/in/s/a.wasm' }}], inputs: {{ s: a.source('.') }},
           outputs: ['x', 'y'], mainProgram: 'm', description: 'd' }}) }}"
    ));
    let evaluation = run(root.path(), Some("a.x"), Mode::Build, |_| {}).expect("it is right");
    assert_eq!(evaluation.roots[0].attribute, "a.x");
    assert_eq!(evaluation.roots[0].main.as_deref(), Some("m"));
    assert_eq!(evaluation.roots[0].output.as_ref().map(|o| o.as_str()), Some("x"));
    assert_eq!((evaluation.derivations.len(), evaluation.sources.len()), (1, 1));
    let list = run(root.path(), None, Mode::List, |_| {}).expect("it is right");
    assert_eq!(list.attributes[0].description.as_deref(), Some("d"));
}

fn traces() {
    let root = project("std.trace('a\\u001b[1mb\\nc', std.trace('d', 1))");
    let mut lines = Vec::new();
    let evaluation = run(root.path(), None, Mode::Json, |line| lines.push(line.to_owned()));
    assert_eq!(evaluation.expect("it is right").json.as_deref(), Some("1"));
    assert_eq!(lines, ["build.jsonnet:1: a[1mb", "c", "build.jsonnet:1: d"]);
}

fn no_worker() {
    let root = project("1");
    let request =
        Request { root: root.path().into(), file: "build.jsonnet".into(), attribute: None, mode: Mode::Json };
    for (exe, expected) in
        [("/nonexistent", "cannot run"), ("/bin/true", "damaged"), ("/bin/false", "damaged")]
    {
        let error = evaluate(Path::new(exe), &request, &limits(), |_| {}).expect_err("there is no worker");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// What is just within the limits is parsed and evaluated, with stack to spare.
fn allowed() {
    let nested = |open: &str, close: &str| format!("{}1{}", open.repeat(490), close.repeat(490));
    for text in [
        format!("1{}", "+1".repeat(9_900)),
        format!("{}1", "-".repeat(9_900)),
        format!("{}1", "local a = 1; ".repeat(9_900)),
        format!("{}1", "if true then ".repeat(4_900)),
        format!("std.length({})", nested("[", "]").replacen('[', "", 1).replacen(']', "", 1)),
        nested("(", ")"),
        format!("{}.a", nested("{a:", "}")),
        nested("std.abs(", ")"),
        // As deep as it goes, in both ways.
        format!("{}{}", "(".repeat(480), ")+1".repeat(480)).replacen(')', "1)", 1),
    ] {
        let root = project(&format!("std.length(std.toString({text})) > 0 || true"));
        if let Err(error) = run(root.path(), None, Mode::Json, |_| {}) {
            assert!(
                matches!(*error.fault, Fault::CallsTooDeep { .. } | Fault::Runtime { .. }),
                "{}…: {error}",
                &text[..30]
            );
        }
    }
}

fn long_chain() {
    let root = project(&format!(
        "{BUILD}local d(n) = a.derivation({{ name: 'd' + n, steps: [{{ run: '/build/a' }}],
           inputs: if n == 0 then {{}} else {{ a: d(n - 1) }} }}); {{ a: d(10000) }}"
    ));
    let start = Instant::now();
    let evaluation = run(root.path(), Some("a"), Mode::Build, |_| {}).expect("it is right");
    let took = start.elapsed();
    assert_eq!(evaluation.derivations.len(), 10_001);
    println!("    10,001 derivations through the worker in {:.2} s", took.as_secs_f64());
}
