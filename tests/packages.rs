//! Real software: the package set, built from source by compilers that are wasm.
//!
//! clang is fetched and compiled to machine code once, into a directory that lasts; everything
//! else is built in a store of each test's own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tests::{Sandbox, cache, copy, manual::blocks, repository, said_to};

/// A store with clang in it. It lasts, because clang is long to fetch and to compile.
fn warm() -> &'static Path {
    static WARM: OnceLock<PathBuf> = OnceLock::new();
    WARM.get_or_init(|| {
        let home = cache().join("home");
        for client in ["npm", "pip", "cargo"] {
            let found = std::process::Command::new(client).arg("--version").output();
            assert!(found.is_ok(), "{client} not found: these tests fetch packages with npm, pip and cargo");
        }
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_assize")).with_home(&home);
        // An object, and not clang alone: so it is compiled to machine code as well.
        sandbox.ok(["build", "-f", &packages(), "hello", "clang", "sysroot"]);
        home
    })
}

/// A store in which the whole package set was built, from clang on, in this run. Its outputs are
/// those that `outputs.txt` has from another machine, another directory, another time: all that is
/// built is a function of its sources.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // In a place that the next run clears.
        let home = cache().join("built");
        if home.exists() {
            fs::remove_dir_all(&home).expect("the store of an earlier run goes");
        }
        copy(warm(), &home);
        let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_assize")).with_home(&home);
        let known = fs::read_to_string(repository().join("tests/outputs.txt")).expect("tests/outputs.txt");
        let known: Vec<_> = known.lines().filter_map(|line| line.split_once(' ')).collect();
        let mut args = vec!["build".to_owned(), "-f".into(), packages(), "--json".into(), "-q".into()];
        args.extend(known.iter().map(|(attribute, _)| (*attribute).to_owned()));
        let said: serde_json::Value = serde_json::from_str(&sandbox.ok(&args)).expect("JSON");
        let outputs = said["data"].as_array().expect("outputs").iter();
        let found: Vec<_> = outputs.map(|o| (o["attribute"].as_str(), o["nar"].as_str())).collect();
        let known: Vec<_> = known.into_iter().map(|(a, nar)| (Some(a), Some(nar))).collect();
        assert_eq!(found, known);
        home
    })
}

/// A store in which everything is built, to run things from.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_assize"));
    copy(built(), sandbox.home());
    sandbox
}

fn packages() -> String {
    repository().join("packages").to_string_lossy().into_owned()
}

fn build(sandbox: &Sandbox, attribute: &str) -> String {
    let data = sandbox.json(&["build", "-f", &packages(), attribute]);
    data[0]["nar"].as_str().expect("a hash").to_owned()
}

#[test]
fn lua_runs_and_builds() {
    let sandbox = sandbox();
    let packages = packages();
    let lua = |script: &str| sandbox.ok(["run", "-q", "-f", &packages, "lua", "--", "-e", script]);
    assert_eq!(lua("print(_VERSION)"), "Lua 5.4\n");
    // Errors are exceptions of wasm.
    assert_eq!(lua("print(pcall(error, 'thrown', 0))"), "false\tthrown\n");
    let primes = build(&sandbox, "primes");
    assert!(sandbox.cat(&primes, "primes.txt").starts_with("2 3 5 7 11 13 17 19 23 29\n31 "));
    assert!(sandbox.ok(["log", "-f", &packages, "primes"]).starts_with("168 primes up to 1000"));
}

#[test]
fn zlib_compresses_as_others_do() {
    let sandbox = sandbox();
    let packages = packages();
    let text = "assize ".repeat(1000);
    let command =
        |args: &[&str]| sandbox.command(["run", "-q", "-f", &packages, "minigzip"].iter().chain(args));
    let compressed = command(&[]);
    let said = {
        let mut command = compressed;
        let mut file = tempfile::tempfile().expect("a file");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("a file");
        std::io::Seek::rewind(&mut file).expect("a file");
        command.stdin(file);
        command.output().expect("the program starts")
    };
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert!(said.stdout.len() < 100);
    assert_eq!(said_to(command(&["--", "-d"]), &said.stdout).out, text);
    let damaged = said_to(command(&["--", "-d"]), &said.stdout[..50]);
    assert_eq!((damaged.code, damaged.err.trim()), (1, "minigzip: the input ends early"));
}

#[test]
fn sqlite_answers() {
    let sandbox = sandbox();
    let packages = packages();
    let query = |database: &str, statements: &str| {
        let args = ["run", "-q", "-f", &packages, "sqlite", "--dir", ".", "--", database, statements];
        sandbox.ok(args)
    };
    assert_eq!(query(":memory:", "select 6 * 7, 'x' || 'y'"), "42|xy\n");
    query("t.db", "create table t(a, b); insert into t values (1, 'one'), (2, 'two')");
    assert_eq!(query("t.db", "select b from t where a = 2"), "two\n");
    assert!(fs::metadata(sandbox.project().join("t.db")).expect("the database").len() > 4096);
}

#[test]
fn python_builds() {
    let sandbox = sandbox();
    let calendar = build(&sandbox, "calendar");
    assert!(sandbox.cat(&calendar, "2026.txt").contains("January"));
    let index: serde_json::Value = serde_json::from_str(&sandbox.cat(&calendar, "index.json")).expect("JSON");
    assert_eq!(index.as_object().map(serde_json::Map::len), Some(3));
}

/// A program of two files and a header, in a project of its own beside the package set's clang.
#[test]
fn one_changed_file_is_one_compilation() {
    let sandbox = sandbox();
    let seeds = repository().join("packages/stage0/seeds");
    for seed in ["files.wasm", "unpack.wasm"] {
        sandbox.write(seed, fs::read(seeds.join(seed)).expect("the seed"));
    }
    let clang = fs::read(repository().join("packages/clang.libsonnet")).expect("the package");
    sandbox.write("clang.libsonnet", clang).write(
        "build.jsonnet",
        "local assize = import 'assize.libsonnet';
         local stage0 = { files: assize.source('files.wasm'), unpack: assize.source('unpack.wasm') };
         local tools = assize.tools(stage0.files, stage0.unpack);
         local compiler = (import 'clang.libsonnet')(assize, stage0, tools);
         local cc = assize.c {
           clang:: compiler.clang, sysroot:: compiler.sysroot, tools:: tools, module:: 'llvm.core.wasm',
         };
         { sum: cc.program({
             name: 'sum',
             objects: cc.units({ name: 'sum', src: assize.source('src'), files: ['main.c', 'add.c'] }),
         }) }",
    );
    let main = "#include \"add.h\"\nint main(void) { return add(40, 2); }\n";
    sandbox.write("src/main.c", main).write("src/add.h", "int add(int, int);\n");
    sandbox.write("src/add.c", "#include \"add.h\"\nint add(int a, int b) { return a + b; }\n");
    assert_eq!(sandbox.executed("sum"), ["sum", "sum-add", "sum-files", "sum-main"]);
    assert_eq!(sandbox.run(["run", "-q", "sum"]).code, 42);
    // A comment: the file is split off and compiled, and gives the same object.
    sandbox.write("src/add.c", "#include \"add.h\"\nint add(int a, int b) { return a + b; } // sum\n");
    assert_eq!(sandbox.executed("sum"), ["sum-add", "sum-files"]);
    // A change: that file and the link.
    sandbox.write("src/add.c", "#include \"add.h\"\nint add(int a, int b) { return a - b; }\n");
    assert_eq!(sandbox.executed("sum"), ["sum", "sum-add", "sum-files"]);
    assert_eq!(sandbox.run(["run", "-q", "sum"]).code, 38);
    // An error: the compiler's words, and where.
    sandbox.write("src/add.c", "int add(int a, int b) { return a }\n");
    sandbox.fails(&["build", "sum"], 100, &["exited with code 1", "add.c:1:", "expected ';'"]);
}

/// What packages/README.md says of a project of one's own.
#[test]
fn a_project_of_ones_own() {
    let manual = fs::read_to_string(repository().join("packages/README.md")).expect("packages/README.md");
    let [c, project, console] =
        ["c", "jsonnet", "console"].map(|language| blocks(&manual, language).concat());
    let (command, said) =
        console.strip_prefix("$ assize ").expect("a command").split_once('\n').expect("two lines");
    let sandbox = sandbox();
    for line in sandbox.ok(["eval", "-f", &packages(), "--list"]).lines() {
        let name = line.split_whitespace().next().expect("a name");
        assert!(manual.contains(&format!("`{name}`")), "packages/README.md does not name {name}");
    }
    copy(&repository().join("packages"), &sandbox.project().join("assize/packages"));
    sandbox.write("src/hello.c", c).write("build.jsonnet", project);
    assert_eq!(sandbox.ok(words(command)), said);
}

/// The commands of the README, as they stand there.
#[test]
fn readme_commands_do_what_the_readme_says() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    let package = fs::read_to_string(repository().join("packages/lua/primes.libsonnet")).expect("a package");
    let (_comment, package) = package.split_once('\n').expect("lines");
    assert!(readme.contains(package), "the README does not show the package as it is");
    let sandbox = sandbox();
    let mut ran = Vec::new();
    for line in readme.lines().filter_map(|line| line.strip_prefix("$ cargo run -q -p cli -- ")) {
        let args = words(line);
        let mut command = sandbox.command(&args);
        command.current_dir(repository());
        let said = tests::said(command);
        assert_eq!(said.code, 0, "{line}\n{}", said.err);
        ran.push(args[0].clone());
        if args[0] == "demo" {
            // Of that, tests/demo.rs sees to the whole.
            let shown = readme.lines().filter(|line| line.contains("  nar:") && !line.starts_with("nar:"));
            let hash = |line: &str| line.split_whitespace().nth(1).map(str::to_owned);
            assert!(shown.clone().count() == 3 && shown.filter_map(hash).all(|nar| said.out.contains(&nar)));
            let table = readme.lines().skip_while(|line| !line.starts_with("  who    signed"));
            let mut table = table.take_while(|line| *line != "```");
            assert!(table.all(|line| said.out.contains(line)), "{}", said.out);
            continue;
        }
        let said = said.out.trim_end().to_owned();
        assert!(readme.contains(&said), "the README does not show what `{line}` gives:\n{said}");
    }
    assert_eq!(ran, ["demo", "run", "build"]);
}

/// Splits a line as a shell does, as far as the README needs it: single quotes.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let words = parts.flat_map(|(n, part)| match n % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}
