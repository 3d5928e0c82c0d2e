//! What tests of the program share: a home of its own, a project of its own, and what a command said.
//!
//! * [`fuzz`]: what is true of every decoder whatever it is given.
//! * [`inside`]: nodes inside this process.
//! * [`machine`]: several of them, with nodes that talk to each other.
//! * [`miscompiler`]: a compiler, and one that is wrong in one instruction.
//! * [`npm`]: programs for Node.js.
//! * [`mutation`]: damage to inputs, the same on every machine.
#![forbid(unsafe_code)]

pub mod fuzz;
pub mod inside;
pub mod machine;
pub mod manual;
pub mod miscompiler;
pub mod mutation;
pub mod npm;

use std::{
    collections::BTreeMap,
    error::Error,
    ffi::OsStr,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// The program, with a store and a project that nobody else uses.
pub struct Sandbox {
    executable: PathBuf,
    directory: tempfile::TempDir,
    home: PathBuf,
    variables: BTreeMap<String, String>,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; 128 and the signal if it was killed.
    pub code: i32,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

impl Sandbox {
    /// `executable` is `env!("CARGO_BIN_EXE_assize")`.
    ///
    /// # Panics
    ///
    /// When no temporary directory can be made.
    pub fn new(executable: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let home = directory.path().join("home");
        fs::create_dir(directory.path().join("project")).expect("a directory for the project");
        Self { executable: executable.into(), directory, home, variables: BTreeMap::new() }
    }

    /// The same with a store elsewhere.
    pub fn with_home(mut self, home: &Path) -> Self {
        self.home = home.into();
        self
    }

    /// The store's directory.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The project's directory.
    pub fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    /// Writes a file of the project.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.project().join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("a directory of the project");
        }
        fs::write(path, content).expect("a file of the project");
        self
    }

    /// Writes a project whose only attribute is a package of that program.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn program(&self, attribute: &str, wasm: &[u8]) -> &Self {
        let seed = repository().join("packages/stage0/seeds/files.wasm");
        let build = format!(
            "local assize = import 'assize.libsonnet';
             {{ {attribute}: assize.derivation({{
                 name: '{attribute}',
                 inputs: {{ program: assize.source('program.wasm'), files: assize.source('files.wasm') }},
                 steps: [{{
                   run: '/in/files', args: ['files', 'copy', '/in/program', '/out/bin/{attribute}.wasm'],
                 }}],
             }}) }}"
        );
        self.write("program.wasm", wasm)
            .write("files.wasm", fs::read(seed).expect("the seed"))
            .write("build.jsonnet", build)
    }

    /// Writes the owner's configuration.
    ///
    /// # Panics
    ///
    /// When it cannot be written.
    pub fn configure(&self, jsonnet: &str) -> &Self {
        let directory = self.directory.path().join("config/assize");
        fs::create_dir_all(&directory).expect("a directory for the configuration");
        fs::write(directory.join("config.jsonnet"), jsonnet).expect("the configuration");
        self
    }

    /// A command in the project's directory.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .args(args)
            .current_dir(self.project())
            .env("ASSIZE_HOME", &self.home)
            .env("XDG_CONFIG_HOME", self.directory.path().join("config"))
            .env("NO_COLOR", "1")
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// All its commands have this in their environment from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.into(), value.into());
    }

    /// Runs a command.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        said(self.command(args))
    }

    /// Runs a command that must succeed, and gives its stdout.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{}", said.err);
        said.out
    }

    /// Runs a command with `--json` that must succeed, and gives its data.
    ///
    /// # Panics
    ///
    /// When it fails, or says something else than an envelope.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let out = self.ok(args.iter().chain(&["--json"]));
        let value: Value = serde_json::from_str(&out).expect("an envelope");
        assert_eq!(value["v"], 1);
        value["data"].clone()
    }

    /// Runs a command that must fail with `code`, saying every text of `says`; an error is a line
    /// of its own, and so is what to do about it. The store must be whole afterwards.
    ///
    /// # Panics
    ///
    /// When it does otherwise.
    #[track_caller]
    pub fn fails(&self, args: &[&str], code: i32, says: &[&str]) -> Said {
        let said = self.run(args);
        assert_eq!(said.code, code, "{}", said.err);
        assert!(said.err.lines().any(|line| line.starts_with("error: ")), "{}", said.err);
        assert!(!said.err.contains("panicked"), "{}", said.err);
        for text in says {
            assert!(said.err.contains(text), "`{text}` is not in:\n{}", said.err);
        }
        said
    }

    /// The hash of the only output that building `attribute` gives.
    ///
    /// # Panics
    ///
    /// When it cannot be built.
    #[track_caller]
    pub fn build(&self, attribute: &str) -> String {
        let data = self.json(&["build", attribute]);
        data[0]["nar"].as_str().expect("a hash").to_owned()
    }

    /// What building `attribute` executed: names, in the order of their ends.
    ///
    /// # Panics
    ///
    /// When it cannot be built.
    #[track_caller]
    pub fn executed(&self, attribute: &str) -> Vec<String> {
        let said = self.run(["build", attribute]);
        assert_eq!(said.code, 0, "{}", said.err);
        let done = |line: &str| {
            let rest = line.strip_prefix("✔ built ").or_else(|| line.strip_prefix("✔ fetched "))?;
            Some(rest.split(' ').next()?.to_owned())
        };
        let mut names: Vec<_> = said.err.lines().filter_map(done).collect();
        names.sort();
        names
    }

    /// A file of an output.
    ///
    /// # Panics
    ///
    /// When there is none.
    #[track_caller]
    pub fn cat(&self, nar: &str, path: &str) -> String {
        self.ok(["nar", "cat", nar, path])
    }
}

/// Runs a command to its end.
///
/// # Panics
///
/// When it cannot be started.
pub fn said(mut command: Command) -> Said {
    use std::os::unix::process::ExitStatusExt as _;
    let output = command.output().expect("the program starts");
    let code = output.status.code().or(output.status.signal().map(|s| 128 + s)).unwrap_or(-1);
    Said {
        code,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a command with that stdin.
///
/// # Panics
///
/// When it cannot be started.
pub fn said_to(mut command: Command, stdin: &[u8]) -> Said {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(stdin).expect("a temporary file");
    std::io::Seek::rewind(&mut file).expect("a temporary file");
    command.stdin(file);
    said(command)
}

/// The top of the repository, of which the test that runs is; whoever keeps what is compiled may have
/// compiled it elsewhere.
pub fn repository() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = Path::new(&here);
    here.parent().unwrap_or(here).to_owned()
}

/// A directory outside of the repository that lasts from one run to the next: for what is long to
/// fetch or to compile.
///
/// # Panics
///
/// When it cannot be made.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let cache = base.unwrap_or_else(std::env::temp_dir).join("assize-tests");
    fs::create_dir_all(&cache).expect("a cache directory");
    cache
}

/// Copies a directory. What is never changed in a store, archives and compiled code, becomes hard
/// links where that is possible.
///
/// # Panics
///
/// When it cannot be copied.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
            continue;
        }
        let fixed = source.extension().is_some_and(|e| e == "nar" || e == "cwasm");
        if !fixed || fs::hard_link(&source, &target).is_err() {
            fs::copy(&source, &target).expect("a copy");
        }
    }
}

/// Runs a command of another program that a test cannot do without; `needed` says what that is.
///
/// # Panics
///
/// When it is not there or fails, with what it said.
pub fn must(mut command: Command, needed: &str) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{error}: this test needs {needed}"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "this test needs {needed}:\n{said}");
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Compares what `says` says of each file below `vectors/` with what is expected of it, in a file of the same
/// name and the extension `.expect`; with `ASSIZE_BLESS` set, one that is missing is written. Returns how many
/// files something was said of.
///
/// # Panics
///
/// When something else is said, or nothing is expected.
pub fn vectors(says: impl Fn(&Path) -> Option<String>) -> usize {
    let mut checked = 0;
    let list =
        |path: &Path| fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path());
    for path in list(&repository().join("tests/vectors")).flat_map(|section| list(&section)) {
        let Some(said) = says(&path) else { continue };
        let expect = path.with_extension("expect");
        if !expect.exists() && std::env::var_os("ASSIZE_BLESS").is_some() {
            fs::write(&expect, format!("{said}\n")).expect("a file");
        }
        let expected = fs::read_to_string(&expect);
        let expected = expected.unwrap_or_else(|_| panic!("{} has no .expect; said: {said}", path.display()));
        assert_eq!(said, expected.trim_end(), "{}", path.display());
        checked += 1;
    }
    checked
}
