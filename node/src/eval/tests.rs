use std::{
    collections::BTreeMap, fs, io::Seek, os::unix::fs::symlink, path::PathBuf, sync::Arc, time::Instant,
};

use protocol::derivation::{Build, Input, Kind};

use super::{session::Watch, *};

/// A project of a few files in a directory of its own.
struct Project {
    /// In a directory of its own, so that nothing is beside the root.
    _outer: tempfile::TempDir,
    root: PathBuf,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let project = Self { root: outer.path().join("project"), _outer: outer };
        for (path, text) in files {
            let path = project.root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        project
    }

    /// One file, with the library as `assize`, and a step and a hash to be brief.
    fn of(text: &str) -> Self {
        Self::new(&[("build.jsonnet", &format!("{HEAD}{text}"))])
    }

    fn run(&self, attribute: &str, mode: Mode) -> Result<Evaluation, EvalError> {
        let attribute = (!attribute.is_empty()).then(|| attribute.to_owned());
        let root = fs::canonicalize(&self.root).unwrap();
        let request = Request { root, file: "build.jsonnet".into(), attribute, mode };
        evaluated(&request)
    }

    #[track_caller]
    fn build(&self, attribute: &str) -> Evaluation {
        self.run(attribute, Mode::Build).unwrap_or_else(|e| panic!("{e}\n{:#?}", e.trace))
    }

    #[track_caller]
    fn json(&self, attribute: &str) -> serde_json::Value {
        let evaluation = self.run(attribute, Mode::Json).unwrap_or_else(|e| panic!("{e}\n{:#?}", e.trace));
        serde_json::from_str(&evaluation.json.unwrap()).unwrap()
    }

    #[track_caller]
    fn fails(&self, attribute: &str, expected: &str) -> EvalError {
        let error = self.run(attribute, Mode::Build).unwrap_err();
        assert_eq!(error.to_string(), expected, "{:#?}", error.trace);
        error
    }
}

/// Evaluates in this process; the answer goes the way of a worker's.
fn evaluated(request: &Request) -> Result<Evaluation, EvalError> {
    let mut file = tempfile::tempfile().unwrap();
    let answer = Arc::new(wire::Answer::new(file.try_clone().unwrap(), u64::MAX));
    let made = answer.clone();
    let made = Box::new(move |encoding: &[u8]| made.derivation(encoding));
    let result = run::run(request, pack, Arc::new(Watch::default()), made);
    answer.end(result).unwrap();
    file.rewind().unwrap();
    wire::read(file)
}

/// Written on one line, so that the text of a test begins on line 2.
const HEAD: &str = "local assize = import 'assize.libsonnet', s = [{ run: '/build/a.wasm' }], \
    h = 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=';\n";

/// Stands in for the store: hashes the names and the bytes of files, in the order of names.
fn pack(path: &Path, exclude: &[Glob]) -> Result<NarHash, PackFailed> {
    fn add(top: &Path, path: &Path, exclude: &[Glob], into: &mut Vec<u8>) {
        let relative = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
        if exclude.iter().any(|glob| glob.matches(relative.as_bytes())) {
            return;
        }
        into.extend(format!("[{relative}]").bytes());
        if path.is_symlink() {
            into.extend(fs::read_link(path).unwrap().to_string_lossy().bytes());
        } else if path.is_dir() {
            let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).collect();
            entries.sort();
            entries.iter().for_each(|entry| add(top, entry, exclude, into));
        } else {
            into.extend(fs::read(path).unwrap());
        }
    }
    if path.join("unpackable").exists() {
        return Err(PackFailed { path: path.join("unpackable"), cause: "it is a socket".into() });
    }
    let mut bytes = Vec::new();
    add(path, path, exclude, &mut bytes);
    Ok(NarHash::of(&bytes))
}

/// The build that is the only root.
#[track_caller]
fn only(evaluation: &Evaluation) -> Build {
    let [root] = &evaluation.roots[..] else { panic!("{:?}", evaluation.roots) };
    match evaluation.derivations[&root.derivation].kind() {
        Kind::Build(build) => build.clone(),
        Kind::Fetch(_) => panic!("a fetch"),
    }
}

#[test]
fn every_field_arrives() {
    let project = Project::of(
        "assize.derivation({
          name: 'hello', steps: [
            { run: '/in/cc/cc.wasm', args: ['cc', '-c'], stdin: '/in/src/a', stdout: '/build/log', cwd: '/build' },
          ],
          inputs: { cc: assize.fetch({ url: 'https://example.org/cc.wasm', hash: h }), src: assize.source('src') },
          env: { A: '1' }, stdin: { b: [1, 2.5, null, true], a: { x: 'ü\\n' } },
          outputs: ['out', 'dev'], executable: ['bin/*'],
          limits: { memory: 1024, seconds: 60, disk: 9007199254740992 },
          mainProgram: 'hello', description: 'says hello',
        })",
    );
    fs::create_dir(project.root.join("src")).unwrap();
    fs::write(project.root.join("src/a"), "text").unwrap();
    let evaluation = project.build("");
    let root = &evaluation.roots[0];
    assert_eq!((root.main.as_deref(), root.description.as_deref()), (Some("hello"), Some("says hello")));
    assert_eq!((root.attribute.as_str(), &root.output), ("", &None));
    let build = only(&evaluation);
    let step = &build.recipe.steps[0];
    assert_eq!((step.run.as_str(), &step.args), ("/in/cc/cc.wasm", &vec!["cc".into(), "-c".into()]));
    assert_eq!(step.stdin.as_ref().unwrap().as_str(), "/in/src/a");
    assert_eq!(step.stdout.as_ref().unwrap().as_str(), "/build/log");
    assert_eq!(step.cwd.as_ref().unwrap().as_str(), "/build");
    assert_eq!(build.recipe.stdin, r#"{"a":{"x":"ü\n"},"b":[1,2.5,null,true]}"#);
    assert_eq!(build.recipe.env, BTreeMap::from([("A".into(), "1".into())]));
    assert_eq!(build.limits.disk, Some(1 << 53));
    assert_eq!(evaluation.derivations.len(), 2);
    let [source] = &evaluation.sources[..] else { panic!("{:?}", evaluation.sources) };
    assert_eq!(source.path, Path::new("src"));
    assert!(build.inputs.values().any(|input| *input == Input::Nar(source.hash)));
}

#[test]
fn only_the_path_is_evaluated() {
    let project = Project::of(
        "{ a: { b: assize.derivation({ name: 'b', steps: s }), c: error 'c' }, d: error 'd',
           \"x y\": { z:: assize.derivation({ name: 'z', steps: s, outputs: ['dev', 'out'] }) } }",
    );
    assert_eq!(only(&project.build("a.b")).name.as_str(), "b");
    let z = project.build("\"x y\".z.dev");
    assert_eq!(z.roots[0].output, Some(Name::new("dev").unwrap()));
    assert_eq!(z.roots[0].attribute, "\"x y\".z.dev");
    project.fails("d", "build.jsonnet:2:74: d");
}

#[test]
fn attributes_that_are_not_there() {
    let project = Project::of("{ hello: { world: assize.derivation({ name: 'a', steps: s }) }, help: 1 }");
    let error = project.fails("helo", "build.jsonnet: no attribute `helo`");
    assert_eq!(error.hint().unwrap(), "did you mean `hello`?");
    let error = project.fails("hello.xxxxx", "build.jsonnet:2:10: no attribute `hello.xxxxx`");
    assert_eq!(error.hint().unwrap(), "the attributes are hello.world");
    project.fails("help.a", "build.jsonnet:2:71: no attribute `help.a`: `help` is the number 1");
    project.fails("help", "build.jsonnet:2:71: `help` is the number 1, not a derivation");
    project.fails("a..b", "build.jsonnet: `a..b` is not an attribute path: a name is empty");
    let error = project.fails("hello.world.xxxxx", "build.jsonnet:2:19: no attribute `hello.world.xxxxx`");
    assert!(error.hint().unwrap().contains("hello.world.out"), "{error:?}");
    Project::of("{ a: { b: 1 } }").fails("", "build.jsonnet: `.` is an object without derivations in it");
    Project::of("assize.source('.')").fails("", "build.jsonnet: `.` is the source ``, not a derivation");
}

#[test]
fn all_derivations_of_an_object() {
    let project = Project::of(
        "local d(n) = assize.derivation({ name: n, steps: s });
         { b: d('b'), a: { x: d('x'), f(y): y, n: null }, v: '1', hidden:: error 'hidden', o: d('o').out,
           c: assize.source('.') }",
    );
    let evaluation = project.build("");
    let roots: Vec<_> = evaluation.roots.iter().map(|r| r.attribute.as_str()).collect();
    assert_eq!(roots, ["a.x", "b", "o"]);
    assert_eq!(evaluation.roots[2].output, Some(Name::out()));
    assert!(evaluation.sources.is_empty());
    Project::of("{ a: self }")
        .fails("", "build.jsonnet:2:6: attributes nest 32 deep; at most 32 are allowed");
}

#[test]
fn handles_as_inputs() {
    let project = Project::of(
        "local d(n, o, i={}) = assize.derivation({ name: n, steps: s, outputs: o, inputs: i });
         { one: d('one', ['lib']), two: d('two', ['a', 'b']), three: d('three', ['a', 'out']),
           good: d('good', ['out'], { one: $.one, b: $.two.b, three: $.three + { more: 1 }, src: assize.source('.') }),
           bad: d('bad', ['out'], { two: $.two }), text: d('text', ['out'], { one: $.one.drv }) }",
    );
    let build = only(&project.build("good"));
    let output = |name: &str| match &build.inputs[&Name::new(name).unwrap()] {
        Input::Output { output, .. } => output.to_string(),
        Input::Nar(_) => "source".into(),
    };
    assert_eq!(["one", "b", "three", "src"].map(output), ["lib", "b", "out", "source"]);
    let error = project.run("bad", Mode::Build).unwrap_err().to_string();
    assert!(
        error.ends_with("derivation `bad`: `inputs.two`: `two` has the outputs a, b: name one of them"),
        "{error}"
    );
    let error = project.run("text", Mode::Build).unwrap_err().to_string();
    assert!(
        error
            .ends_with("`inputs.one` must be a derivation, one of its outputs, or a source, but is a string"),
        "{error}"
    );
}

/// A handle can be copied and extended, but not made.
#[test]
fn forged_handles() {
    let project = Project::of(
        "local d = assize.derivation({ name: 'd', steps: s });
         { copy: { [k]: d[k] for k in ['$assize', 'drv'] },
           drv: { drv:: d.drv, name:: 'd', outputs:: ['out'], out:: { drv:: d.drv, output:: 'out' } },
           token: { '$assize': d.drv }, func: { '$assize': function() 1 },
           local two = assize.derivation({ name: 'two', steps: s, outputs: ['dev', 'out'] }),
           mixed: two { '$assize':: d['$assize'] }, wrong: self.mixed.dev, lost: [(two { '$assize':: 1 }).drv] }",
    );
    assert_eq!(only(&project.build("copy")).name.as_str(), "d");
    assert_eq!(only(&project.build("mixed")).name.as_str(), "d");
    for (attribute, expected) in [
        ("wrong", "`dev` is no output of `d`, not a derivation"),
        ("lost", "`$assize` is an object, not a derivation"),
    ] {
        assert_eq!(project.run(attribute, Mode::Json).unwrap_err().fault.to_string(), expected);
    }
    for forged in ["drv", "token", "func"] {
        let error = project.run(forged, Mode::Build).unwrap_err();
        let expected = format!("`{forged}` is an object without derivations in it");
        assert_eq!(error.fault.to_string(), expected);
    }
}

#[test]
fn handles_are_not_text() {
    let project = Project::of(
        "local d = assize.derivation({ name: 'd', steps: s, outputs: ['dev', 'out'] });
         { a: 'x' + d, b: '%s' % [d.dev], c: std.manifestJson({ d: d }), e: '' + assize.source('.'),
           f: assize.derivation({ name: 'f', steps: [{ run: '/build/a', args: ['a', d] }] }),
           g: assize.derivation({ name: 'g', steps: s, stdin: { x: [d] } }),
           h: 'ok' + d.drv + d.dev.drv + d.name, i: d == assize.source('.') }",
    );
    for (attribute, what) in [
        ("a", "the derivation `d`"),
        ("b", "the output `dev` of `d`"),
        ("c", "the derivation `d`"),
        ("e", "the source ``"),
        ("f", "the derivation `d`"),
        ("g", "the derivation `d`"),
        ("i", "the derivation `d`"),
    ] {
        let error = project.run(attribute, Mode::Build).unwrap_err();
        assert_eq!(error.fault.to_string(), format!("{what} cannot become text"));
        assert!(error.hint().unwrap().contains("inputs"));
        assert!(error.at.unwrap().line > 0, "{attribute}");
    }
    assert!(project.json("h").as_str().unwrap().starts_with("okdrv:"));
}

#[test]
fn mistakes_in_derivations() {
    #[track_caller]
    fn fails(args: &str, expected: &str, hint: &str) {
        let project = Project::of(&format!("{{\n x: assize.derivation({args}) }}"));
        let error = project.run("x", Mode::Build).unwrap_err();
        assert_eq!(error.to_string(), format!("build.jsonnet:3:5: {expected}"), "{:#?}", error.trace);
        let manual = "docs/jsonnet.md says what each function takes";
        assert_eq!(error.hint().unwrap(), if hint.is_empty() { manual } else { hint });
    }
    fails("{ nam: 'a' }", "derivation: unknown field `nam`", "did you mean `name`?");
    fails(
        "{ name: 'a', steps: [{ run: '/build/a', argv: [] }] }",
        "derivation `a`: unknown field `steps[0].argv`",
        "did you mean `steps[0].args`?",
    );
    fails(
        "{ name: 'a', steps: s, limits: { time: 1 } }",
        "derivation `a`: unknown field `limits.time`",
        "the fields are memory, seconds, disk",
    );
    fails("{ steps: s }", "derivation: the field `name` is missing", "");
    fails("{ name: 'a' }", "derivation `a`: a derivation needs at least one step", "");
    fails("{ name: 'a', steps: [{}] }", "derivation `a`: the field `steps[0].run` is missing", "");
    fails("'a'", "derivation: `the argument` must be an object, but is a string", "");
    fails("{ name: 1 }", "derivation: `name` must be a string, but is the number 1", "");
    fails(
        "{ name: 'a b', steps: s }",
        "derivation `a b`: `name`: `a b` has the character ' '; names are made of letters, digits and `_.+-`, and begin with a letter, a digit or `_`",
        "",
    );
    fails(
        "{ name: 'a', steps: s, env: { A: 1 } }",
        "derivation `a`: `env.A` must be a string, but is the number 1",
        "",
    );
    fails(
        "{ name: 'a', steps: s, stdin: [] }",
        "derivation `a`: `stdin` must be an object, but is an array",
        "",
    );
    fails("{ name: 'a', steps: s, stdin: { f(x): 1 } }", "`f` is a function, which JSON cannot express", "");
    fails(
        "{ name: 'a', steps: s, stdin: { inputs: 1 } }",
        "derivation `a`: stdin has the field `inputs`, which the build system itself provides",
        "",
    );
    fails(
        "{ name: 'a', steps: s, outputs: ['out', 'out'] }",
        "derivation `a`: `outputs[1]`: the name is there twice",
        "",
    );
    fails(
        "{ name: 'a', steps: s, outputs: ['drv'] }",
        "derivation `a`: `outputs`: no output may be called `drv`",
        "",
    );
    fails(
        "{ name: 'a', steps: s, outputs: [] }",
        "derivation `a`: a derivation needs at least one output",
        "",
    );
    fails(
        "{ name: 'a', steps: s, executable: ['/a'] }",
        "derivation `a`: `executable[0]`: pattern `/a` has an empty component",
        "",
    );
    fails(
        "{ name: 'a', steps: s, limits: { memory: 1.5 } }",
        "derivation `a`: `limits.memory` must be a whole number from 0 to 2^53, but is the number 1.5",
        "",
    );
    fails(
        "{ name: 'a', steps: [{ run: '/in/x/y' }] }",
        "derivation `a`: step 1: `/in/x/y` is in the input `x`, which this derivation does not have",
        "",
    );
    fails(
        "{ name: 'a', steps: [{ run: 'x' }] }",
        "derivation `a`: `steps[0].run`: `x` must begin with `/`",
        "",
    );
    fails(
        "{ name: 'a', steps: s, inputs: { x: 'drv:a' } }",
        "derivation `a`: `inputs.x` must be a derivation, one of its outputs, or a source, but is a string",
        "",
    );
    fails(
        "{ name: 'a', steps: s, inputs: { x: null } }",
        "derivation `a`: `inputs.x` must be a derivation, one of its outputs, or a source, but is null",
        "",
    );
}

#[test]
fn fetches() {
    let fetch = |args: &str| {
        let evaluation =
            Project::of(&format!("assize.fetch({{ hash: h }} + {{ {args} }})")).run("", Mode::Build);
        evaluation.map(|e| match e.derivations[&e.roots[0].derivation].kind() {
            Kind::Fetch(fetch) => fetch.clone(),
            Kind::Build(_) => panic!("a build"),
        })
    };
    let good = |args, name: &str, locations: &[&str]| {
        let fetch = fetch(args).unwrap();
        assert_eq!(
            (fetch.name.as_str(), &fetch.locations[..]),
            (name, &locations.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>()[..])
        );
    };
    good("url: 'https://example.org/a.tar.gz'", "a.tar.gz", &["https://example.org/a.tar.gz"]);
    good("urls: ['https://a/x', 'http://b/y'], name: 'z'", "z", &["https://a/x", "http://b/y"]);
    good("npm: '@yowasp/clang@22.0.0'", "yowasp-clang-22.0.0", &["npm:@yowasp/clang@22.0.0"]);
    good("pypi: 'a==1.0', file: 'a-1.0.whl'", "a-1.0.whl", &["pypi:a@1.0#a-1.0.whl"]);
    good(
        "crate: 'lua-src@550.0.0', url: 'https://a/b'",
        "lua-src-550.0.0",
        &["crate:lua-src@550.0.0", "https://a/b"],
    );
    assert!(fetch("url: 'https://a/b', executable: true").unwrap().executable);
    let bad = |args, expected: &str| {
        let error = fetch(args).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    bad("", "one of `url`, `urls`, `npm`, `pypi` and `crate` must be there");
    bad("uri: 'https://a/b'", "fetch: unknown field `uri`");
    bad("url: 'ftp://a/b'", "must begin with `https://`");
    bad("url: 'npm:a@1.0.0'", "must begin with `https://`");
    bad("npm: 'a'", "`npm`: `a` must name an exact version");
    bad("pypi: 'a'", "must name an exact version");
    bad("file: 'a', url: 'https://a/b'", "it goes with `pypi` only");
    bad("url: 'https://a/'", "give a name");
    bad("url: 'https://a/b', hash: 'md5-AA'", "expected `sha256-`");
    bad("url: 'https://a/b', hash: null", "the field `hash` is missing");
}

#[test]
fn sources() {
    let project = Project::new(&[
        ("build.jsonnet", "{ top: (import 'lib/a.libsonnet').at('.'), lib: import 'lib/a.libsonnet' }"),
        (
            "lib/a.libsonnet",
            "local assize = import 'assize.libsonnet';
             local use(x) = assize.derivation({ name: 'a', steps: [{ run: '/build/a' }], inputs: { x: x } });
             { at(p): use(assize.source(p)), here: use(assize.source('./src', exclude=['**/*.o'])),
               up: use(assize.source('..')), out: use(assize.source('../..')), link: use(assize.source('link')),
               abs: use(assize.source('/etc')), none: use(assize.source('none')), map: std.map(assize.source, ['src'])[0].nar,
               bad: use(assize.source('bad')), glob: use(assize.source('src', ['/x'])), file: use(assize.source('src/a.c')) }",
        ),
        ("lib/src/a.c", "a"),
        ("lib/src/a.o", "o"),
        ("lib/bad/unpackable", ""),
    ]);
    symlink("/etc", project.root.join("lib/link")).unwrap();
    let path = |attribute: &str| project.build(attribute).sources[0].path.clone();
    assert_eq!(path("top"), Path::new("lib"));
    assert_eq!(path("lib.here"), Path::new("lib/src"));
    assert_eq!(path("lib.up"), Path::new(""));
    assert_eq!(path("lib.file"), Path::new("lib/src/a.c"));
    assert_eq!(project.build("lib.here").sources[0].exclude, ["**/*.o"]);
    let before = project.build("lib.here").roots[0].derivation;
    fs::write(project.root.join("lib/src/a.o"), "other").unwrap();
    assert_eq!(project.build("lib.here").roots[0].derivation, before);
    fs::write(project.root.join("lib/src/a.c"), "other").unwrap();
    assert_ne!(project.build("lib.here").roots[0].derivation, before);
    let fails = |attribute: &str, expected: &str| {
        let error = project.run(attribute, Mode::Build).unwrap_err().to_string();
        assert!(
            error.contains(".libsonnet:") == (attribute != "lib.map") && error.contains(expected),
            "{error}"
        );
    };
    fails("lib.out", "cannot use `../..` as a source: it is outside of the project");
    fails("lib.link", "cannot use `link` as a source: it is outside of the project");
    fails("lib.abs", "the path must be relative");
    fails("lib.none", "there is no such file");
    fails("lib.map", "call `assize.source` yourself");
    fails("lib.bad", "cannot use `lib/bad/unpackable` as a source: it is a socket");
    fails("lib.glob", "`exclude[0]`: pattern `/x` has an empty component");
}

#[test]
fn imports() {
    let project = Project::new(&[
        ("build.jsonnet", "{ good: import 'a/../a/./b.libsonnet', str: importstr 'a/t', bin: importbin 'a/t',
           abs: import '/etc/passwd',\n up: import '../?', link: import 'link', dir: import 'a', fifo: importstr 'fifo',
           none: import 'none', big: importstr 'big', utf: importstr 'utf', deep: import 'a/deep', both: [importstr 'a/brackets', import 'a/brackets'],
           self_: (import 'build.jsonnet').good, cycle: import 'a/cycle', null_: importstr 'a\\u0000b' }"),
        ("a/b.libsonnet", "std.thisFile"),
        ("a/t", "hi"),
        ("a/deep", "{ a:\n  [1,, 2] }"),
        ("a/brackets", &"[".repeat(1000)),
        ("a/cycle", "import 'cycle'"),
        ("big", &"x".repeat((4 << 20) + 1)),
    ]);
    let root = &project.root;
    symlink("/etc/passwd", root.join("link")).unwrap();
    fs::write(root.join("utf"), [0xff]).unwrap();
    let fifo =
        rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0);
    fifo.unwrap();
    assert_eq!(project.json("good"), "a/b.libsonnet");
    assert_eq!(project.json("str"), "hi");
    assert_eq!(project.json("bin"), serde_json::json!([104, 105]));
    assert_eq!(project.json("self_"), "a/b.libsonnet");
    let fails = |attribute: &str, expected: &str| {
        let error = project.run(attribute, Mode::Json).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    };
    fails(
        "abs",
        "build.jsonnet:2:17: cannot import `/etc/passwd`: the path must be relative to the file that names it",
    );
    fails("up", "build.jsonnet:3:6: cannot import `../?`: there is no such file");
    fails("link", "build.jsonnet:3:27: cannot import `link`: it is outside of the project");
    fails("dir", "build.jsonnet:3:47: cannot import `a`: it is a directory");
    fails("fifo", "build.jsonnet:3:65: cannot import `fifo`: it is not a regular file");
    fails("none", "build.jsonnet:4:18: cannot import `none`: there is no such file");
    fails("big", "build.jsonnet:4:38: cannot import `big`: it has more than 4194304 bytes");
    fails("utf", "build.jsonnet:4:60: cannot import `utf`: it is not UTF-8");
    fails("deep", "a/deep:2:6: syntax error: expected ");
    fails("both", "a/brackets:1:501: brackets nest 501 deep; at most 500 are allowed");
    fails("cycle", "a/cycle:1:1: infinite recursion in `cycle`");
}

#[test]
fn json_and_list() {
    let project = Project::of(
        "{ d: assize.derivation({ name: 'd', steps: error 'not needed', description: 'a d' }), o: self.d.out,
           s: assize.source('.'), n: 1.5, e: error 'e', f(x): x, z: { y: error 'y' }, h:: 1, t: true, nul: null, a: [] }",
    );
    let list = project.run("", Mode::List).unwrap().attributes;
    let list: Vec<_> = list.iter().map(|a| format!("{} {}", a.path, a.kind)).collect();
    assert_eq!(
        list,
        [
            "a array",
            "d derivation",
            "e error",
            "f function",
            "n number",
            "nul null",
            "o output",
            "s source",
            "t boolean",
            "z object"
        ]
    );
    assert!(project.run("n", Mode::List).unwrap().attributes.is_empty());
    assert_eq!(project.run("", Mode::List).unwrap().attributes[1].description.as_deref(), Some("a d"));
    let project = Project::of(
        "local d = assize.derivation({ name: 'd', steps: s }); { d: d, o: [d.out], s: assize.source('build.jsonnet') }",
    );
    let json = project.json("");
    let drv = project.build("d").roots[0].derivation.to_string();
    assert_eq!(json["d"], serde_json::json!({ "drv": drv, "name": "d" }));
    assert_eq!(json["o"][0], serde_json::json!({ "drv": drv, "name": "d", "output": "out" }));
    assert_eq!(json["s"]["path"], "build.jsonnet");
    assert_eq!(project.run("d", Mode::Json).unwrap().derivations.len(), 1);
    assert_eq!(
        Project::of("{ b: [], a: {} , c: [1] }").run("", Mode::Json).unwrap().json.unwrap(),
        "{\n  \"a\": {},\n  \"b\": [],\n  \"c\": [\n    1\n  ]\n}"
    );
    assert_eq!(Project::of("function(x=2) x").json(""), 2);
}

#[test]
fn no_way_out() {
    for (text, expected) in [
        ("std.extVar('HOME')", "external variable is not defined: HOME"),
        ("native", "`native` is not defined"),
        ("error 'a\\u001b[31mb'", "a[31mb"),
    ] {
        let error = Project::of(text).run("", Mode::Json).unwrap_err();
        assert_eq!(error.fault.to_string(), expected);
    }
    assert_eq!(Project::of("std.native('derivation')").json(""), serde_json::Value::Null);
    assert_eq!(Project::of("std.thisFile").json(""), "build.jsonnet");
}

#[test]
fn cycles() {
    let project = Project::of(
        "local d(n, i) = assize.derivation({ name: n, steps: s, inputs: i });
         { a: d('a', { b: $.b }), b: d('b', { c: $.c.out }), c: d('c', { a: $.a }),
           x: { y: self.z, z: self.y }, t: d($.t.drv, {}) }",
    );
    let error = project.run("a", Mode::Build).unwrap_err();
    assert_eq!(error.fault.to_string(), "derivations need each other: a → b → c → a");
    let error = project.run("x.y", Mode::Build).unwrap_err();
    assert_eq!(error.fault.to_string(), "infinite recursion in `x.y`");
    let error = project.run("t", Mode::Build).unwrap_err();
    assert_eq!(error.fault.to_string(), "the derivation `?` needs itself");
}

/// Nothing of a directory's own name gets into a derivation.
#[test]
fn two_directories_give_the_same_ids() {
    let files = [
        ("build.jsonnet", "local a = import 'assize.libsonnet'; { [std.md5(std.thisFile)]: import 'l/b.libsonnet' }"),
        ("l/b.libsonnet", "local a = import 'assize.libsonnet'; a.derivation({ name: 'b', steps: [{ run: '/build/a',
           args: [std.thisFile] }], inputs: { s: a.source('../src') }, stdin: { s: a.source('../src').path } })"),
        ("src/x", "x"),
    ];
    let (one, two) = (Project::new(&files), Project::new(&files));
    let nested = Project::new(&[]);
    for (path, text) in files {
        let path = nested.root.join("deeper/and deeper").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = fs::canonicalize(nested.root.join("deeper/and deeper")).unwrap();
    let request = Request { root, file: "build.jsonnet".into(), attribute: None, mode: Mode::Build };
    let three = evaluated(&request).unwrap();
    assert_eq!(one.build(""), two.build(""));
    assert_eq!(one.build(""), three);
}

/// A chain and a diamond of 10,000 derivations each: shared inputs are resolved once, and the stack
/// does not grow with the chain.
#[test]
fn ten_thousand_derivations() {
    let project = Project::of(
        "local d(n, i) = assize.derivation({ name: n, steps: s, inputs: i });
         local chain(n) = if n == 0 then d('c0', {}) else d('c' + n, { before: chain(n - 1) });
         local wide = [d('w' + n, { base: base }) for n in std.range(1, 100)], base = d('base', {});
         local layer(n) = if n == 0 then [base, base] else
           local below = layer(n - 1);
           [d('l' + n, { a: below[0], b: below[1] }), d('r' + n, { a: below[0], b: below[1] })];
         local grid = std.foldl(function(below, n)
           [d('g%d-%d' % [n, m], { a: below[m], b: below[(m + 1) % 100] }) for m in std.range(0, 99)],
           std.range(1, 100), wide);
         { chain: chain(10000), diamond: layer(1000)[0], grid: d('grid', { ['i' + n]: grid[n] for n in std.range(0, 99) }) }",
    );
    for (attribute, count) in [("chain", 10_001), ("diamond", 2_000), ("grid", 10_102)] {
        let start = Instant::now();
        assert_eq!(project.build(attribute).derivations.len(), count);
        eprintln!("{attribute}: {count} derivations in {:?}", start.elapsed());
    }
}

#[test]
fn duplicates_are_one() {
    let project =
        Project::of("{ [n]: assize.derivation({ name: 'same', steps: s }) for n in ['a', 'b', 'c'] }");
    let evaluation = project.build("");
    assert_eq!((evaluation.roots.len(), evaluation.derivations.len()), (3, 1));
}

/// The steps of the build that is the only root, as one reads them.
#[track_caller]
fn commands(evaluation: &Evaluation) -> Vec<String> {
    let steps = only(evaluation).recipe.steps;
    steps.iter().map(|step| format!("{} {}", step.run, step.args.join(" "))).collect()
}

const TOOLS: &str = "
    local fetch(name) = assize.fetch({ name: name, url: 'https://example.org/' + name, hash: h });
    local tools = assize.tools(fetch('files'), fetch('unpack'));
    local cc = assize.c { clang:: fetch('clang'), sysroot:: fetch('sysroot'), tools:: tools };
    local src = fetch('src');
";

#[test]
fn running_a_tool() {
    let project = Project::of(&format!(
        "{TOOLS} {{
          run: assize.run({{ name: 'r', tool: src, program: 'bin/x.wasm', args: ['-v'], stdout: '/out/log', env: {{ A: 'b' }} }}),
          whole: assize.run({{ name: 'r', tool: src }}),
          clash: assize.run({{ name: 'r', tool: src, inputs: {{ tool: src }} }}),
          wrong: assize.run({{ name: 'r', tol: src }}), missing: assize.run({{ name: 'r' }}),
          inner: assize.run({{ name: 'r', tool: src, args: [1] }}) }}"
    ));
    assert_eq!(commands(&project.build("run")), ["/in/tool/bin/x.wasm x.wasm -v"]);
    assert_eq!(commands(&project.build("whole")), ["/in/tool tool"]);
    let fails = |attribute: &str, expected: &str| {
        let error = project.run(attribute, Mode::Build).unwrap_err();
        assert!(error.fault.to_string().contains(expected), "{error}");
        // The author's call, not the library.
        assert_eq!(error.at.as_ref().unwrap().file, "build.jsonnet");
        assert!(error.at.unwrap().line > 7);
    };
    fails("clash", "the input `tool` is the program itself");
    fails("wrong", "run `r`: unknown field `tol`");
    fails("missing", "run `r`: the field `tool` is missing");
    fails("inner", "derivation `r`: `steps[0].args[1]` must be a string, but is the number 1");
}

#[test]
fn tools() {
    let project = Project::of(&format!(
        "{TOOLS} {{
          select: tools.select({{ name: 'a', from: src, globs: ['*.c', 'x/**'] }}),
          split: tools.split({{ name: 'a', from: src, parts: {{ b: ['*.c'], a: ['*.h', 'x'] }} }}),
          write: tools.write({{ name: 'a', file: 'config.h', text: '1\n' }}),
          substitute: tools.substitute({{ name: 'a', from: src, file: 'f', replace: [['x', 'y']] }}),
          unpack: tools.unpack({{ name: 'a', archive: src, strip: 1, only: ['*/include/**'] }}) }}"
    ));
    let first = |attribute: &str| commands(&project.build(attribute)).remove(0);
    assert_eq!(first("select"), "/in/tool tool select /in/from /out *.c x/**");
    assert_eq!(first("split.a"), "/in/tool tool split /in/from a=*.h,x b=*.c");
    assert_eq!(first("write"), "/in/tool tool write --json-field text /out/config.h");
    assert_eq!(only(&project.build("write")).recipe.stdin, r#"{"text":"1\n"}"#);
    assert_eq!(first("substitute"), "/in/tool tool substitute --in /in/from/f --out /out/f --replace x y");
    assert_eq!(first("unpack"), "/in/tool tool /in/archive /out --strip 1 --only */include/**");
}

#[test]
fn compiling_c() {
    let project = Project::of(&format!(
        "{TOOLS}
        local units = cc.units({{ name: 'lua', src: src, files: ['lvm.c', 'sub/x.y.c'], flags: ['-DA'] }});
        {{
          one: cc.object({{ name: 'one', src: src, file: 'a/b.c', headers: [src] }}),
          first: units[0], second: units[1],
          lib: cc.library({{ name: 'lua', objects: units }}),
          prog: cc.program({{ name: 'lua', objects: [$.one], libraries: [$.lib, 'm'], ldflags: ['-s'] }}),
          no_clang: assize.c.object({{ name: 'a', src: src, file: 'a.c' }}),
          no_object: cc.program({{ name: 'a', objects: [src] }}),
          own: (cc {{ cflags:: ['-O0'], module:: 'bin/clang.wasm' }}).object({{ name: 'a', src: src, file: 'a.c' }}) }}"
    ));
    let target = "--target=wasm32-wasip1 --sysroot=/in/sysroot -resource-dir=/in/sysroot";
    let first = |attribute: &str| commands(&project.build(attribute)).remove(0);
    assert_eq!(
        first("one"),
        format!(
            "/in/clang yowasp-llvm clang {target} -O2 -I/in/headers0/a -I/in/src -I/in/headers0 -c /in/src/a/b.c -o /out/b.o"
        )
    );
    assert_eq!(
        first("second"),
        format!(
            "/in/clang yowasp-llvm clang {target} -O2 -DA -I/in/headers0/sub -I/in/src -I/in/headers0 -c /in/src/sub/x.y.c -o /out/x.y.o"
        )
    );
    assert!(first("own").starts_with(&format!("/in/clang/bin/clang.wasm yowasp-llvm clang {target} -O0 ")));
    assert_eq!(
        commands(&project.build("lib")),
        [
            "/in/files files mkdir /out/lib",
            "/in/clang yowasp-llvm ar rcsD /out/lib/liblua.a /in/object0/lvm.o /in/object1/x.y.o",
        ]
    );
    let lib = "/in/sysroot/lib";
    assert_eq!(
        commands(&project.build("prog"))[1],
        format!(
            "/in/clang yowasp-llvm wasm-ld -m wasm32 -L{lib}/wasm32-unknown-wasip1 -L{lib}/wasm32-wasip1 -s \
             {lib}/wasm32-wasip1/crt1-command.o /in/object0/b.o /in/archive0/lib/liblua.a -lm -lc \
             {lib}/wasm32-unknown-wasip1/libclang_rt.builtins.a -o /out/bin/lua.wasm"
        )
    );
    assert_eq!(project.build("prog").roots[0].main.as_deref(), Some("bin/lua.wasm"));
    // Both units are parts of one split of the sources.
    let inputs = |attribute: &str| only(&project.build(attribute)).inputs;
    let part = |attribute: &str, name: &str| match inputs(attribute)[&Name::new(name).unwrap()].clone() {
        Input::Output { derivation, output } => (derivation, output.to_string()),
        Input::Nar(_) => panic!("a source"),
    };
    assert_eq!(part("first", "headers0"), part("second", "headers0"));
    assert_eq!(part("first", "src").0, part("second", "src").0);
    assert_eq!([part("first", "src").1, part("second", "src").1], ["unit0", "unit1"]);
    let error = project.run("no_clang", Mode::Build).unwrap_err().to_string();
    assert!(error.contains("c: set `clang`"), "{error}");
    let error = project.run("no_object", Mode::Build).unwrap_err();
    assert!(error.to_string().contains("`objects` are what"), "{error}");
    assert_eq!(error.at.unwrap().file, "build.jsonnet");
}

/// Every example of the manual is evaluated.
#[test]
fn the_manual() {
    let manual = include_str!("../../../docs/jsonnet.md");
    let examples: Vec<&str> =
        manual.split("```jsonnet\n").skip(1).map(|e| e.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 8);
    for example in examples {
        let project =
            Project::new(&[("lib/build.jsonnet", example), ("build.jsonnet", "import 'lib/build.jsonnet'")]);
        for file in [
            "hello.wasm",
            "files.wasm",
            "unpack.wasm",
            "clang.wasm",
            "sysroot/a",
            "src/a",
            "src.tar.gz",
            "a.wasm",
            "b.wasm",
        ] {
            let file = project.root.join("lib").join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        match project.run("", Mode::Build) {
            Ok(evaluation) => assert!(!evaluation.roots.is_empty()),
            Err(error) => assert!(example.contains("src: assize.source('..'"), "{error}\n{example}"),
        }
    }
}
