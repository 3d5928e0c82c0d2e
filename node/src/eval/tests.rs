use std::{collections::BTreeMap, fs, sync::Arc, time::Instant};

use protocol::derivation::{Build, Input, Kind};

use super::{session::Watch, *};

/// A project of a few files in a directory of its own.
struct Project {
    root: tempfile::TempDir,
}

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let project = Self { root: tempfile::tempdir().unwrap() };
        for (path, text) in files {
            let path = project.root.path().join(path);
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
        let root = fs::canonicalize(self.root.path()).unwrap();
        let request = Request { root, file: "build.jsonnet".into(), attribute, mode };
        run::run(&request, pack, Arc::new(Watch::default()))
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
        if path.is_dir() {
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
    fs::create_dir(project.root.path().join("src")).unwrap();
    fs::write(project.root.path().join("src/a"), "text").unwrap();
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
