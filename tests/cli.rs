//! The program as its user meets it: what it says, what it exits with, what it does to the store.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Stdio,
    time::Duration,
};

use tests::{Sandbox, repository, said_to};

/// A project with stage 0's `files` tool and that body of an object.
fn sandbox(body: &str) -> Sandbox {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_assize"));
    let seed = repository().join("packages/stage0/seeds/files.wasm");
    sandbox.write("files.wasm", fs::read(seed).expect("the seed"));
    project(&sandbox, body);
    sandbox
}

fn project(sandbox: &Sandbox, body: &str) {
    sandbox.write(
        "build.jsonnet",
        format!(
            "local assize = import 'assize.libsonnet';
             local files = assize.source('files.wasm');
             local write(name, text, more={{}}) = assize.derivation({{
               name: name, inputs: {{ files: files }},
               steps: [{{ run: '/in/files', args: ['files', 'write', '--json-field', 'text', '/out/text'] }}],
               stdin: {{ text: text }},
             }} + more);
             local join(name, parts) = assize.derivation({{
               name: name,
               inputs: {{ files: files }} + {{ ['p' + i]: parts[i] for i in std.range(0, std.length(parts) - 1) }},
               steps: [{{
                 run: '/in/files',
                 args: ['files', 'concat', '/out/text'] + ['/in/p%d/text' % i for i in std.range(0, std.length(parts) - 1)],
               }}],
             }});
             {{ {body} }}"
        ),
    );
}

#[test]
fn builds_once_and_the_same_everywhere() {
    let body = "a: write('a', 'hello\\n')";
    let (one, other) = (sandbox(body), sandbox(body));
    let nar = one.build("a");
    assert_eq!(one.cat(&nar, "text"), "hello\n");
    assert_eq!(one.executed("a"), [""; 0]);
    assert_eq!(other.build("a"), nar, "another directory, another store, another time");
    assert_eq!(other.ok(["build", "a", "--check", "3", "-q"]).split(' ').next(), Some(nar.as_str()));
}

/// Another user, who has nothing in common with the first: not the home, the umask, the language, the
/// time zone, the working directory, the modes of the sources; and, where that can be had, not the uid.
#[test]
fn two_users_get_the_same_hashes() {
    use std::os::unix::{fs::PermissionsExt as _, process::CommandExt as _};
    const NOBODY: u32 = 65_534;
    let body =
        "all: join('all', [write('a', '1'), write('b', '2')]), src: join('src', [assize.source('src')])";
    let (one, other) = (sandbox(body), sandbox(body));
    for sandbox in [&one, &other] {
        sandbox.write("src/text", "Ä\n").write("src/deep/I", "i");
    }
    let args = |file: &str| ["build", "--json", "-q", "-f", file].map(str::to_owned);
    let first: serde_json::Value = serde_json::from_str(&one.ok(args("."))).expect("JSON");

    // Where everybody may enter: the program, a home, and somewhere to be.
    let place = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| place.path().join(name);
    for name in ["", "home", "elsewhere"] {
        fs::create_dir_all(at(name)).expect("a directory");
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).expect("permissions");
    }
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_assize"));
    fs::hard_link(program, at("assize"))
        .or_else(|_| fs::copy(program, at("assize")).map(drop))
        .expect("the program");
    fs::set_permissions(other.project().join("src/text"), fs::Permissions::from_mode(0o600))
        .expect("permissions");

    let switch = |command: &mut std::process::Command| {
        command.uid(NOBODY).gid(NOBODY);
    };
    let mut probe = std::process::Command::new(at("assize"));
    switch(probe.arg("--version").stdout(std::process::Stdio::null()));
    let can_switch = probe.status().is_ok_and(|status| status.success());
    // The same in a shell, for its umask, which a process inherits.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(at("assize"));
    command
        .args(args(other.project().to_str().expect("a path")))
        .env_clear()
        .current_dir(at("elsewhere"))
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("LANG", "tr_TR.UTF-8"),
            ("LC_ALL", "tr_TR.UTF-8"),
            ("TZ", "Asia/Kathmandu"),
            ("USER", "somebody"),
        ]);
    command.env("HOME", at("home"));
    if can_switch {
        let top = other.project().parent().expect("it is in a directory").to_owned();
        let all = [top, place.path().to_owned()];
        let given = std::process::Command::new("chown").args(["-R", "65534:65534"]).args(all).status();
        assert!(given.expect("chown runs").success());
        switch(&mut command);
    } else {
        println!("not tested: another uid, which only root can take on; all else is");
    }
    let said = tests::said(command);
    assert_eq!(said.code, 0, "{}", said.err);
    let second: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(first, second);
    assert_eq!(first["data"].as_array().map(Vec::len), Some(2));
    let store = at("home/.local/share/assize");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&store).expect("a store of its own"));
    assert_eq!(owner == NOBODY, can_switch, "the store belongs to {owner}");
}

#[test]
fn only_what_changed_is_built_and_equal_outputs_stop_the_change() {
    let sandbox = sandbox("all: join('all', [write('a', '1'), write('b', '2')])");
    assert_eq!(sandbox.executed("all"), ["a", "all", "b"]);
    project(&sandbox, "all: join('all', [write('a', '1'), write('b', '3')])");
    assert_eq!(sandbox.executed("all"), ["all", "b"]);
    // Another environment is another action of `a`, with the same output: `all` is not built.
    project(&sandbox, "all: join('all', [write('a', '1', { env: { X: '1' } }), write('b', '3')])");
    assert_eq!(sandbox.executed("all"), ["a"]);
    // A name cannot change an output.
    project(&sandbox, "all: join('other', [write('a', '1', { env: { X: '1' } }), write('c', '3')])");
    assert_eq!(sandbox.executed("all"), [""; 0]);
}

#[test]
fn what_was_collected_is_made_again_when_it_is_needed() {
    let sandbox = sandbox("all: join('all', [write('a', '1'), write('b', '2')]), a: write('a', '1')");
    let all = sandbox.build("all");
    sandbox.ok(["store", "pin", "kept", "a"]);
    sandbox.ok(["store", "gc"]);
    assert_eq!(sandbox.run(["nar", "ls", &all]).code, 4);
    assert_eq!(sandbox.json(&["store", "pin", "again", "a"])["name"], "again");
    let kept = sandbox.json(&["store", "pins"])["kept"][0].as_str().expect("a pin").to_owned();
    assert_eq!(sandbox.cat(&kept, "text"), "1");
    assert_eq!(sandbox.executed("all"), ["all", "b"], "`a` was kept");
    sandbox.ok(["store", "verify"]);
}

#[test]
fn output_is_unpacked_and_never_over_something() {
    let sandbox = sandbox("a: write('a', 'hello\\n')");
    sandbox.ok(["build", "a", "-o", "result"]);
    assert_eq!(fs::read_to_string(sandbox.project().join("result/text")).expect("a file"), "hello\n");
    sandbox.fails(&["build", "a", "-o", "result"], 1, &["hint: "]);
}

#[test]
fn store_travels_as_a_file_and_damage_is_found() {
    let (one, other) = (sandbox("a: write('a', 'hello\\n')"), sandbox("a: write('a', 'hello\\n')"));
    let nar = one.build("a");
    one.ok(["store", "export", "a", "-o", "bundle"]);
    let bundle = one.project().join("bundle");
    other.ok(["store", "import", bundle.to_str().expect("a path")]);
    assert_eq!(other.cat(&nar, "text"), "hello\n");
    // An import is somebody else's word: it is not taken for a build of one's own.
    assert_eq!(other.executed("a"), ["a"]);
    let mut bytes = fs::read(&bundle).expect("the bundle");
    let at = bytes.windows(6).position(|w| w == b"hello\n").expect("the text");
    bytes[at] ^= 1;
    other.write("bad", bytes);
    other.fails(&["store", "import", "bad"], 102, &["hint: "]);

    let data = one.json(&["nar", "hash", "files.wasm"]);
    let hex = one.json(&["store", "verify"]);
    assert_eq!(hex["damaged"].as_array().map(Vec::len), Some(0));
    let hex = data["hex"].as_str().expect("digits");
    let file = one.home().join("cas").join(&hex[..2]).join(format!("{}.nar", &hex[2..]));
    let mut permissions = fs::metadata(&file).expect("the archive").permissions();
    #[allow(clippy::permissions_set_readonly_false, reason = "a file of this test")]
    permissions.set_readonly(false);
    fs::set_permissions(&file, permissions).expect("permissions");
    let mut bytes = fs::read(&file).expect("the archive");
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    fs::write(&file, bytes).expect("the archive");
    one.fails(&["store", "verify"], 21, &["--repair"]);
    one.ok(["store", "verify", "--repair"]);
    one.ok(["store", "verify"]);
    assert_eq!(one.build("a"), nar, "the source is taken anew");
}

/// 102 is for hashes alone; other bad input is 1, and a missing file is 4 everywhere.
#[test]
fn imports_and_missing_files_have_their_codes() {
    let sandbox = sandbox("a: write('a', 'x')");
    sandbox.write("text", "no archive").write("tree/actions/x", "").write("tree/nars/x", "");
    sandbox.fails(&["store", "import", "text"], 1, &["not a NAR archive", "hint: "]);
    let bundle = sandbox.command(["nar", "dump", "tree"]).output().expect("the program starts").stdout;
    sandbox.write("foreign", bundle);
    sandbox.fails(&["store", "import", "foreign"], 1, &["actions/x", "hint: "]);
    for command in [
        &["store", "import", "nope"][..],
        &["nar", "hash", "nope"],
        &["nar", "dump", "nope"],
        &["nar", "ls", "nope"],
        &["nar", "cat", "nope"],
        &["nar", "restore", "nope", "to"],
        &["build", "-f", "nope"],
        &["build", "--root", "nope"],
    ] {
        sandbox.fails(command, 4, &["nope", "hint: "]);
    }
    sandbox.write("build.jsonnet", "{}");
    sandbox.fails(&["build"], 4, &["without derivations", "assize eval --list"]);
    sandbox.write("build.jsonnet", "1");
    sandbox.fails(&["build"], 3, &["not a derivation"]);
}

/// The file's own value is called `.`, and can be called so.
#[test]
fn the_root_has_a_name() {
    let sandbox = sandbox("");
    sandbox.write(
        "build.jsonnet",
        "local assize = import 'assize.libsonnet';
         assize.derivation({
           name: 'own', inputs: { files: assize.source('files.wasm') },
           steps: [{ run: '/in/files', args: ['files', 'write', '--json-field', 'text', '/out/text'] }],
           stdin: { text: 'x' },
         })",
    );
    let nar = sandbox.build(".");
    assert_eq!(sandbox.json(&["build"])[0]["nar"], nar.as_str());
    assert_eq!(sandbox.json(&["show", "."])["outputs"][0]["nar"], nar.as_str());
    sandbox.ok(["log", "."]);
    sandbox.ok(["eval", "."]);
    sandbox.ok(["store", "pin", "own", "."]);
}

#[test]
fn what_succeeds_beside_a_failure_is_printed() {
    let sandbox = sandbox(
        "good: write('good', 'x'),
         bad: assize.derivation({
           name: 'bad', inputs: { files: files }, steps: [{ run: '/in/files', args: ['files', 'nonsense'] }],
         })",
    );
    let said = sandbox.fails(&["build", "-k", "-j", "1"], 100, &["bad"]);
    sandbox.fails(&["show", "bad"], 4, &["was executed here, and gave nothing", "`assize log bad`"]);
    assert!(said.out.starts_with("nar:") && said.out.contains("  good  "), "{}", said.out);
    assert_eq!(said.out.lines().count(), 1);
    let said = sandbox.run(["build", "-k", "--json"]);
    let data: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!((said.code, data["data"][0]["attribute"].as_str()), (100, Some("good")));
}

#[test]
fn json_is_said_by_all_that_have_something_to_say() {
    let sandbox = sandbox("a: write('a', 'x')");
    let built = sandbox.json(&["build", "a", "--check", "2"]);
    assert_eq!(built[0]["checked"], 2);
    assert!(sandbox.json(&["build", "a"])[0]["checked"].is_null());
    sandbox.ok(["store", "pin", "p", "a"]);
    assert_eq!(sandbox.json(&["store", "unpin", "p"])["name"], "p");
    assert!(sandbox.json(&["store", "reindex"])["notices"].is_array());
    assert_eq!(sandbox.json(&["man", "pages"])["directory"], "pages");
    // So are faults of the command line, where there is nothing that has read `--json` yet.
    for args in [&["build", "--json", "--no-such-flag"][..], &["--json"], &["store", "import", "--json"]] {
        let said = sandbox.run(args);
        assert_eq!((said.code, said.out.as_str()), (2, ""));
        let error: serde_json::Value = serde_json::from_str(&said.err).expect("one JSON text");
        assert_eq!((&error["kind"], &error["data"]["code"]), (&"error".into(), &2.into()), "{error}");
        assert!(error["data"]["message"].as_str().is_some_and(|m| !m.is_empty() && !m.starts_with("error")));
    }
    let said = sandbox.run(["build", "--no-such-flag", "--", "--json"]);
    assert!(said.code == 2 && said.err.starts_with("error: "), "{}", said.err);
    // `ASSIZE_HOME` is set here; that does not make `--home` a part of the usage.
    assert!(!said.err.contains("--home"), "{}", said.err);
}

/// A log of 20 MB and bytes that are no text: whole, and one JSON text.
#[test]
fn long_logs_are_streamed() {
    let sandbox = sandbox("a: write('a', 'x')");
    sandbox.build("a");
    let action = sandbox.json(&["show", "a"])["action"].as_str().expect("an action").to_owned();
    let log = b"l\xc3\xbcne \xff\"\x1b\n".repeat(2_000_000);
    let id: protocol::id::ActionId = action.parse().expect("an id");
    let hex = id.to_hex();
    let path = sandbox.home().join("logs").join(&hex[..2]).join(format!("{}.log", &hex[2..]));
    fs::write(path, &log).expect("the log");
    let raw = sandbox.command(["log", "a"]).output().expect("the program starts").stdout;
    assert!(raw == log, "{} bytes of {}", raw.len(), log.len());
    let data = sandbox.json(&["log", "a"]);
    assert_eq!(data["action"], action.as_str());
    assert!(data["log"].as_str() == Some(&*String::from_utf8_lossy(&log)));
}

#[test]
fn names_in_archives_are_bytes() {
    use std::os::unix::ffi::OsStrExt as _;
    let sandbox = sandbox("a: 1");
    let name = std::ffi::OsStr::from_bytes(b"d/\xff\xfe");
    fs::create_dir_all(sandbox.project().join("tree/d")).expect("a directory");
    fs::write(sandbox.project().join("tree").join(name), "bytes").expect("a file");
    let nar = sandbox.command(["nar", "dump", "tree"]).output().expect("the program starts").stdout;
    sandbox.write("tree.nar", nar);
    let arguments = |command: &'static str| [command.as_ref(), "tree.nar".as_ref(), name];
    let all = |command| ["nar".as_ref()].into_iter().chain(arguments(command));
    assert_eq!(sandbox.ok(all("cat")), "bytes");
    assert_eq!(sandbox.ok(all("ls")).lines().count(), 1);
    assert_eq!(sandbox.ok(["nar", "ls", "tree.nar", "//d//"]).lines().count(), 2);
}

#[test]
fn index_is_built_anew() {
    let sandbox = sandbox("a: write('a', 'hello\\n')");
    sandbox.build("a");
    fs::remove_dir_all(sandbox.home().join("index")).expect("the index");
    assert_eq!(sandbox.executed("a"), [""; 0]);
    sandbox.ok(["store", "reindex"]);
    assert_eq!(sandbox.executed("a"), [""; 0]);
}

#[test]
fn bad_input_has_a_cause_a_hint_and_an_exit_code() {
    let sandbox = sandbox("a: write('a', 'x'), broken: error 'not this one'");
    // Selecting an attribute evaluates only that.
    sandbox.build("a");
    sandbox.fails(&["build", "b"], 4, &["`b`", "hint: "]);
    sandbox.fails(&["build", "broken"], 3, &["build.jsonnet:", "not this one"]);
    sandbox.fails(&["build", "a", "-f", "nowhere"], 4, &["nowhere", "hint: "]);
    sandbox.fails(&["log", "act:aaaa"], 4, &["act:aaaa", "hint: "]);
    assert_eq!(sandbox.run(["build", "--no-such-flag"]).code, 2);
    sandbox.fails(&["watch", "--once", "nobody"], 4, &["`nobody`", "hint: "]);
    assert_eq!(sandbox.run(["watch", "--once", "--votes", "0"]).code, 2);

    let evaluates = |body: &str, code: i32, says: &[&str]| {
        sandbox.write("x.jsonnet", format!("local assize = import 'assize.libsonnet';\n{body}"));
        sandbox.fails(&["build", "-f", "x.jsonnet"], code, says);
    };
    evaluates("{ a: ", 3, &["x.jsonnet:2:"]);
    evaluates("local a = b, b = a; a", 3, &["recursion"]);
    evaluates("import '/etc/passwd'", 3, &["x.jsonnet:2:", "/etc/passwd"]);
    evaluates("import '../../../../etc/passwd'", 3, &["x.jsonnet:2:"]);
    evaluates("importstr 'nowhere.txt'", 3, &["nowhere.txt"]);
    evaluates("assize.derivation({ name: 'x', stepz: [] })", 3, &["stepz", "steps"]);
    evaluates("assize.derivation({ name: 'x', steps: [] })", 3, &["at least one step"]);
    evaluates("assize.source('nowhere')", 3, &["nowhere"]);
    evaluates("assize.source('..')", 3, &["hint: "]);
    evaluates(
        "assize.fetch({ url: 'ftp://example.org/x', hash: 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' })",
        3,
        &["ftp://"],
    );
    evaluates("assize.fetch({ url: 'https://example.org/x', hash: 'md5-xyz' })", 3, &["sha256"]);
    // A cycle through two derivations.
    evaluates(
        "local d(name, x) = assize.derivation({ name: name, inputs: { x: x }, steps: [{ run: '/in/x', args: [] }] });
         { local s = self, a: d('a', s.b), b: d('b', s.a) }",
        3,
        &["a → b → a"],
    );
    sandbox.ok(["store", "verify"]);
}

/// Serves `content` to every request until the test is over.
fn serve(content: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(16) {
            let mut stream = stream;
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.read(&mut [0; 4096]);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(content));
        }
    });
    port
}

#[test]
fn fetched_files_are_what_their_hash_says() {
    let port = serve(b"hello\n");
    let fetch = |hash: &str| {
        format!("f: assize.fetch({{ name: 'f', url: 'http://127.0.0.1:{port}/x', hash: '{hash}' }})")
    };
    let good = "sha256-WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoai6Eb2vgM=";
    let sandbox = sandbox(&fetch("sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="));
    sandbox.fails(&["build", "f"], 102, &["expected sha256-47DE", good, "hint: "]);
    project(&sandbox, &fetch(good));
    let nar = sandbox.build("f");
    assert_eq!(sandbox.cat(&nar, ""), "hello\n");
    // What is in the store is not fetched again.
    assert_eq!(sandbox.ok(["build", "f", "--offline", "-q"]).split(' ').next(), Some(nar.as_str()));
    sandbox.ok(["store", "gc"]);
    sandbox.fails(&["build", "f", "--offline"], 1, &["offline"]);
}

#[test]
fn failures_say_which_step_and_keep_what_was_asked_for() {
    let sandbox = sandbox(
        "bad: assize.derivation({
           name: 'bad', inputs: { files: files },
           steps: [
             { run: '/in/files', args: ['files', 'write', '--json-field', 'text', '/build/left'] },
             { run: '/in/files', args: ['files', 'copy', '/in/missing', '/out/x'] },
           ],
           stdin: { text: 'look at me' },
         })",
    );
    let said = sandbox.fails(
        &["build", "bad"],
        100,
        &["step 2 (`files`) exited with code 1", "/in/missing", "assize log act:"],
    );
    let action = said.err.split('`').find_map(|part| part.strip_prefix("assize log ")).expect("a command");
    assert!(sandbox.ok(["log", action]).contains("/in/missing"));
    assert!(sandbox.ok(["log", "bad"]).contains("/in/missing"));
    sandbox.fails(&["build", "bad", "--keep-failed", "kept"], 100, &["kept"]);
    assert_eq!(
        fs::read_to_string(sandbox.project().join("kept/bad/build/left")).expect("the file"),
        "look at me"
    );
}

#[test]
fn terminals_and_readers_of_json_are_safe_from_logs() {
    let sandbox = sandbox(
        "bad: assize.derivation({
           name: 'bad', inputs: { files: files },
           steps: [{ run: '/in/files', args: ['files', '\\u001b[31mred\\u0007'] }],
         })",
    );
    let said = sandbox.run(["build", "bad"]);
    assert!(!said.err.contains('\u{1b}') && !said.err.contains('\u{7}'), "{:?}", said.err);
    let said = sandbox.run(["build", "bad", "--json"]);
    assert_eq!(said.code, 100);
    let last = said.err.lines().last().expect("an error");
    let error: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!((&error["v"], &error["kind"]), (&1.into(), &"error".into()));
    assert_eq!(error["data"]["code"], 100);
}

/// A project whose `x` is that program.
fn program(wat: &str) -> Sandbox {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_assize"));
    sandbox.program("x", &wat::parse_str(wat).expect("the test's own module"));
    sandbox
}

#[test]
fn programs_get_what_is_granted_and_no_more() {
    let cat = "(module
      (import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))
      (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
      (import \"wasi_snapshot_preview1\" \"environ_sizes_get\" (func $env (param i32 i32) (result i32)))
      (import \"wasi_snapshot_preview1\" \"fd_prestat_get\" (func $prestat (param i32 i32) (result i32)))
      (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
      (memory (export \"memory\") 1)
      (data (i32.const 0) \"\\20\\00\\00\\00\\00\\10\\00\\00\")
      (func (export \"_start\")
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 4)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (drop (call $env (i32.const 16) (i32.const 20)))
        (call $exit (i32.add
          (i32.mul (i32.load (i32.const 16)) (i32.const 10))
          (i32.eqz (call $prestat (i32.const 3) (i32.const 24)))))))";
    let sandbox = program(cat);
    // The exit code tells: ten for each variable, one for a directory.
    let run = |args: &[&str]| {
        let said = said_to(sandbox.command(["run", "-q", "x"].iter().chain(args)), b"through");
        assert_eq!(said.out, "through");
        said.code
    };
    assert_eq!(run(&[]), 0, "nothing is granted");
    assert_eq!(run(&["--env", "A=1", "--env", "B=2"]), 20);
    assert_eq!(run(&["--dir", "."]), 1);
    assert_eq!(run(&["--dir", ".=/work:ro", "--env", "A=1"]), 11);
    sandbox.fails(&["run", "x", "--dir", "nowhere"], 4, &["nowhere", "hint: "]);
    sandbox.fails(&["run", "x", "--env", "NOT_SET_ANYWHERE"], 2, &["NOT_SET_ANYWHERE", "hint: "]);
    sandbox.fails(&["run", "x", "--program", "bin/y"], 4, &["bin/y", "bin/x.wasm"]);
}

#[test]
fn a_program_ends_with_ctrl_c() {
    let sandbox = program(
        "(module
          (import \"wasi_snapshot_preview1\" \"fd_read\" (func $read (param i32 i32 i32 i32) (result i32)))
          (import \"wasi_snapshot_preview1\" \"fd_write\" (func $write (param i32 i32 i32 i32) (result i32)))
          (memory (export \"memory\") 1)
          (data (i32.const 0) \"\\10\\00\\00\\00\\05\\00\\00\\00\")
          (data (i32.const 16) \"ready\")
          (func (export \"_start\")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))))",
    );
    let mut child = sandbox.command(["run", "x"]).stdin(Stdio::piped()).spawn().expect("the program starts");
    // Held open: the end of its stdin would end it too.
    let _stdin = child.stdin.take().expect("a pipe");
    let mut ready = [0; 5];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("it says that it is ready");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    assert_eq!(child.wait().expect("a process").code(), Some(130));
}

#[test]
fn two_commands_take_turns() {
    let sandbox = sandbox("a: write('a', 'hello\\n'), b: write('b', 'hello\\n')");
    let children: Vec<_> = ["a", "b", "a", "b"]
        .iter()
        .map(|attribute| sandbox.command(["build", attribute]).spawn().expect("the program starts"))
        .collect();
    for child in children {
        let output = child.wait_with_output().expect("a process");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    sandbox.ok(["store", "verify"]);
}

#[test]
fn killing_a_build_at_any_instant_loses_nothing() {
    let parts: Vec<_> = (0..24).map(|n| format!("write('p{n}', '{n}')")).collect();
    let sandbox = sandbox(&format!("all: join('all', [{}])", parts.join(", ")));
    let mut known = 0;
    for n in 0..25 {
        let mut child = sandbox.command(["build", "all"]).spawn().expect("the program starts");
        std::thread::sleep(Duration::from_millis(15 + 13 * n % 170));
        let _ = child.kill();
        let _ = child.wait();
        let now = sandbox.json(&["store", "ls"]).as_array().map_or(0, Vec::len);
        assert!(now >= known, "{known} builds were known before the kill, {now} after");
        known = now;
    }
    let nar = sandbox.build("all");
    assert_eq!(sandbox.cat(&nar, "text").len(), 10 + 28);
    sandbox.ok(["store", "verify"]);
    // What a kill has cost is signatures, and these can be made up for: then all is said, and once.
    sandbox.ok(["attest", "publish"]);
    let built = sandbox.json(&["store", "ls"]).as_array().map_or(0, Vec::len);
    assert_eq!(sandbox.json(&["attest", "list"])[0]["statements"], built);
}

/// The same outputs are not all: what the guest did on the way must be the same, too.
#[test]
fn another_transcript_is_another_execution() {
    let sandbox = sandbox("a: write('a', 'hello\\n')");
    sandbox.build("a");
    sandbox.ok(["build", "a", "--check", "2"]);
    let store = store::Store::open(sandbox.home(), |_| false).expect("a store");
    let built = store.realisations().expect("an index").next().expect("it was built").expect("a fact");
    assert!(built.transcript.is_some());
    let transcript = Some(protocol::witness::TranscriptHash::from_bytes([7; 32]));
    store.record(&store::Fact::Built(store::Realisation { transcript, ..built })).expect("it is recorded");
    drop(store);
    sandbox.fails(&["build", "a", "--rebuild"], 104, &["in different ways", "bug of assize"]);
}

#[test]
fn archives_without_a_store() {
    let sandbox = sandbox("a: 1");
    sandbox.write("tree/a", "hello").write("tree/d/b", "");
    let nar = sandbox.command(["nar", "dump", "tree"]).output().expect("the program starts").stdout;
    sandbox.write("tree.nar", &nar);
    sandbox.ok(["nar", "restore", "tree.nar", "again"]);
    assert_eq!(sandbox.ok(["nar", "hash", "tree"]), sandbox.ok(["nar", "hash", "again"]));
    let hex = sandbox.ok(["nar", "hash", "--hex", "tree"]);
    assert_eq!(hex.trim(), protocol::id::NarHash::of(&nar).to_hex());
    assert_eq!(sandbox.ok(["nar", "ls", "tree.nar", "d"]).lines().count(), 2);
    assert_eq!(sandbox.ok(["nar", "cat", "tree.nar", "a"]), "hello");
    sandbox.write("cut.nar", &nar[..nar.len() - 8]);
    sandbox.fails(&["nar", "ls", "cut.nar"], 1, &["byte"]);
    assert_eq!(sandbox.json(&["nar", "restore", "tree.nar", "third"])["files"], 2);
    sandbox.fails(&["nar", "cat", "tree.nar", "nowhere"], 4, &["nowhere"]);
    assert!(!sandbox.home().exists(), "no store was made");
}

#[test]
fn every_command_explains_itself() {
    let sandbox = sandbox("a: write('a', 'x')");
    for command in ["build", "run", "eval", "show", "log", "store", "nar", "doctor", "completions", "man"] {
        let help = sandbox.ok([command, "--help"]);
        assert!(help.contains("Usage: assize"), "{command}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(sandbox.ok(["completions", shell]).contains("assize"));
    }
    assert!(sandbox.ok(["man"]).contains("assize"));
    sandbox.ok(["man", "pages"]);
    assert!(sandbox.project().join("pages/assize-build.1").exists());
    sandbox.ok(["doctor"]);
    assert!(sandbox.json(&["doctor"]).as_array().is_some_and(|checks| checks.len() >= 8));
    sandbox.build("a");
    assert!(sandbox.ok(["show", "a"]).contains("act:"));
    assert_eq!(sandbox.json(&["show", "a"])["what"]["kind"], "build");
    assert!(sandbox.ok(["eval", "a"]).contains("drv:"));
    assert_eq!(sandbox.ok(["eval", "--list"]).lines().count(), 1);
    assert_eq!(sandbox.ok(["build", "a", "--dry-run"]).trim(), "present   a");
    assert!(sandbox.json(&["store", "df"])["archives"]["files"].as_u64().is_some_and(|n| n >= 2));
}

#[test]
fn configuration_is_read_and_checked() {
    let sandbox = sandbox("a: write('a', 'x')");
    sandbox.configure("{ jobs: 1, limits: { seconds: 60 }, fetch: { offline: true } }");
    sandbox.build("a");
    // The manual's example has every key.
    let manual = fs::read_to_string(repository().join("docs/config.md")).expect("docs/config.md");
    let example = manual.split("```jsonnet\n").nth(1).and_then(|rest| rest.split("```").next());
    sandbox.configure(example.expect("an example"));
    sandbox.build("a");
    sandbox.configure("{ job: 1 }");
    sandbox.fails(&["build", "a"], 3, &["job", "config.jsonnet"]);
    sandbox.configure("{ jobs: 0 }");
    sandbox.fails(&["build", "a"], 3, &["jobs"]);
}

/// A file beyond 4 GiB, of which almost nothing is on the disk, among other shapes.
#[test]
fn archives_are_those_of_nix() {
    let sandbox = sandbox("a: 1");
    let found = std::process::Command::new("nix-store").arg("--version").output();
    assert!(found.is_ok(), "nix-store not found: install nix-bin");
    sandbox.write("tree/empty", "").write("tree/ü/名", "x").write("tree/sub/deep/er", [0; 4096]);
    let tree = sandbox.project().join("tree");
    fs::create_dir(tree.join("nothing")).expect("a directory");
    std::os::unix::fs::symlink("../nowhere", tree.join("link")).expect("a symlink");
    let large = fs::File::create(tree.join("large")).expect("a file");
    large.set_len((4 << 30) + 1).expect("a sparse file");
    let compared = std::process::Command::new("bash")
        .args(["-c", "cmp <(\"$0\" nar dump tree) <(nix-store --dump tree)", env!("CARGO_BIN_EXE_assize")])
        .current_dir(sandbox.project())
        .output()
        .expect("bash runs");
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
}
