//! Fetching, against servers that misbehave and against the real registries.
//!
//! What the environment says is tested in a child process: this test binary again, told by a
//! variable what to fetch.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use node::fetch::{Config, FetchError, Mirrors, Prefix, Progress, Template, fetch};
use protocol::{
    derivation::Fetch,
    name::Name,
    sri::{Algorithm, Sri},
};
use tempfile::TempDir;

use server::{Breaking, Server, file, serve, serve_tls, whole};

#[path = "fetch/server.rs"]
mod server;

/// Length of the file that most tests fetch.
const LENGTH: usize = 3_000_000;

#[test]
fn a_file_comes_and_stays() {
    let body = body();
    let server = serve(move |_, asked, out| file(asked, out, "1", &body));
    let mut it = Fetching::of(&[&server.url("/a?token=secret")]);
    let path = it.run().unwrap();
    assert_eq!(fs::read(&path).unwrap(), self::body());
    assert_eq!(it.progress[0], Progress::Trying { location: server.url("/a?…") });
    assert!(it.progress.contains(&Progress::Bytes { done: LENGTH as u64, total: Some(LENGTH as u64) }));
    assert_eq!(it.progress.last(), Some(&Progress::Verifying));
    assert_eq!(server.asked()[0].headers["accept-encoding"], "identity");
    assert_eq!(it.files(), [path.file_name().unwrap().to_str().unwrap()]);

    it.config.offline = true;
    assert_eq!(it.run().unwrap(), path);
    assert_eq!(server.asked().len(), 1);
    fs::write(&path, "something else").unwrap();
    let error = it.run().unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }), "{error:?}");
}

#[test]
fn an_encoding_is_part_of_the_file() {
    let body = body();
    let server = serve(move |_, _, out| whole(out, "200 OK", "content-encoding: gzip\r\n", &body));
    Fetching::of(&[&server.url("/a.tar.gz")]).run().unwrap();
}

#[test]
fn an_empty_file() {
    let server = serve(|_, _, out| whole(out, "200 OK", "", b""));
    let mut it = Fetching::of(&[&server.url("/")]);
    it.sri = sri(b"");
    assert_eq!(fs::read(it.run().unwrap()).unwrap(), b"");
}

#[test]
fn a_broken_connection_is_resumed() {
    let server = breaking_once(LENGTH / 2, file);
    let mut it = Fetching::of(&[&server.url("/a")]);
    it.run().unwrap();
    let asked = server.asked();
    let at = asked[1].range().unwrap() as u64;
    assert!(it.progress.contains(&Progress::Resuming { at }), "{:?}", it.progress);
    assert!(at > 0 && asked[1].headers["if-range"] == "\"1\"" && asked.len() == 2);
}

#[test]
fn the_next_run_resumes() {
    let server = breaking_once(LENGTH / 2, file);
    let mut it = Fetching::of(&[&server.url("/a")]);
    it.config.retries = 0;
    let error = it.run().unwrap_err();
    assert!(
        matches!(error, FetchError::Truncated { expected, .. } if expected == LENGTH as u64),
        "{error:?}"
    );
    it.run().unwrap();
    assert!(it.progress.iter().any(|p| matches!(p, Progress::Resuming { at } if *at > 0)));
}

#[test]
fn a_server_without_ranges_starts_again() {
    let server = breaking_once(LENGTH / 2, |_, out, _, body| whole(out, "200 OK", "etag: \"1\"\r\n", body));
    let mut it = Fetching::of(&[&server.url("/a")]);
    it.run().unwrap();
    assert!(!it.progress.iter().any(|p| matches!(p, Progress::Resuming { .. })));
    assert!(server.asked()[1].range().is_some());
}

#[test]
fn a_server_without_validators_is_not_asked_to_resume() {
    let server = breaking_once(LENGTH / 2, |_, out, _, body| whole(out, "200 OK", "etag: W/\"1\"\r\n", body));
    Fetching::of(&[&server.url("/a")]).run().unwrap();
    assert_eq!(server.asked()[1].range(), None);
}

/// The first half of one file and the second half of another, under one tag.
#[test]
fn halves_of_different_files_cost_one_more_download() {
    let server = serve(|n, asked, out| match n {
        0 => file(asked, &mut Breaking { out, left: LENGTH / 2 }, "1", &[0; LENGTH]),
        _ => file(asked, out, "1", &body()),
    });
    Fetching::of(&[&server.url("/a")]).run().unwrap();
    let ranges: Vec<_> = server.asked().iter().map(|a| a.range().is_some()).collect();
    assert_eq!(ranges, [false, true, false]);
}

#[test]
fn another_file_is_refused_and_the_next_location_tried() {
    let bad = serve(|_, asked, out| file(asked, out, "1", b"another"));
    let good = serve(|_, asked, out| file(asked, out, "1", &body()));
    let mut it = Fetching::of(&[&bad.url("/a"), &good.url("/a")]);
    it.run().unwrap();

    let mut it = Fetching::of(&[&bad.url("/a")]);
    let error = it.run().unwrap_err();
    let found = sri(b"another");
    let hint = error.hint().unwrap();
    match &error {
        FetchError::Hash { expected, found: there, location } => {
            assert_eq!((expected, there, location), (&it.sri, &found, &bad.url("/a")));
        }
        other => panic!("{other:?}"),
    }
    assert!(error.is_mismatch() && hint.contains(&found.to_string()), "{hint}");
    assert_eq!(it.files(), [""; 0]);

    let gone = serve(|_, _, out| whole(out, "404 Not Found", "", b"<html>\x1b[2J"));
    let error = Fetching::of(&[&gone.url("/a"), &bad.url("/b")]).run().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("answered with status 404") && text.contains("gave another file"), "{text}");
    assert!(error.is_mismatch() && !text.contains('\x1b'), "{text}");
}

#[test]
fn redirects_are_followed_and_end() {
    let server = serve(|_, asked, out| match asked.line.split(' ').nth(1).unwrap() {
        "/b/c" => whole(out, "302 Found", "location: ../d?e=f\r\n", b"moved"),
        "/d?e=f" => file(asked, out, "1", &body()),
        "/ftp" => whole(out, "301 Moved", "location: ftp://user:secret@h/a\r\n", b""),
        _ => whole(out, "307 Again", "location: /loop\r\n", b""),
    });
    Fetching::of(&[&server.url("/b/c")]).run().unwrap();
    let error = Fetching::of(&[&server.url("/loop")]).run().unwrap_err();
    assert!(matches!(error, FetchError::Redirects { limit: 10, .. }), "{error:?}");
    let error = Fetching::of(&[&server.url("/ftp")]).run().unwrap_err();
    assert_eq!(error.to_string(), "`ftp://h/a` is not an http or https URL");
    assert_eq!(server.asked().len(), 2 + 11 + 1);
}

#[test]
fn who_sends_next_to_nothing_is_given_up() {
    let drip = serve(|_, _, out| {
        write!(out, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")?;
        for _ in 0..200 {
            out.write_all(b"x")?;
            out.flush()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    let silent = serve(|_, _, _| {
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    });
    for server in [drip, silent] {
        let mut it = Fetching::of(&[&server.url("/a")]);
        (it.config.retries, it.config.stall_timeout) = (0, Duration::from_millis(400));
        let start = Instant::now();
        let error = it.run().unwrap_err();
        assert!(matches!(error, FetchError::Stalled { .. }), "{error:?}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn what_is_too_long_is_not_taken() {
    let announced = serve(|_, _, out| write!(out, "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"));
    let endless = serve(|_, _, out| {
        write!(out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            write!(out, "1000\r\n{}\r\n", "x".repeat(0x1000))?;
        }
    });
    for (server, expected) in [(announced, Some(99_999_999_999)), (endless, None)] {
        let mut it = Fetching::of(&[&server.url("/a")]);
        it.config.limit = 1 << 20;
        let error = it.run().unwrap_err();
        match error {
            FetchError::TooLong { found, limit, .. } => assert_eq!((found, limit), (expected, 1 << 20)),
            other => panic!("{other:?}"),
        }
        assert_eq!(it.files(), [""; 0]);
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn only_what_may_pass_is_tried_again() {
    let server = serve(|n, asked, out| match n {
        0 => whole(out, "503 Service Unavailable", "retry-after: 0\r\n", b""),
        1 => Ok(()), // Hangs up without a word.
        _ => file(asked, out, "1", &body()),
    });
    Fetching::of(&[&server.url("/a")]).run().unwrap();
    assert_eq!(server.asked().len(), 3);

    for (status, requests) in [("404 Not Found", 1), ("403 Forbidden", 1), ("500 Oops", 3)] {
        let server = serve(move |_, _, out| whole(out, status, "", b""));
        let error = Fetching::of(&[&server.url("/a")]).run().unwrap_err();
        assert!(matches!(error, FetchError::Status { .. }), "{error:?}");
        assert_eq!(server.asked().len(), requests, "{status}");
    }
    let error = Fetching::of(&["http://127.0.0.1:9/a"]).run().unwrap_err();
    assert!(matches!(error, FetchError::Transport { .. }), "{error:?}");
}

#[test]
fn cancelled_at_once() {
    let server = serve(|_, _, out| {
        write!(out, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")?;
        out.write_all(&[0; 5000])?;
        out.flush()?;
        std::thread::sleep(Duration::from_secs(10));
        Ok(())
    });
    let mut it = Fetching::of(&[&server.url("/a"), &server.url("/b")]);
    let cancel = it.cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        cancel.store(true, Ordering::Relaxed);
    });
    let start = Instant::now();
    let error = it.run().unwrap_err();
    assert!(matches!(error, FetchError::Cancelled), "{error:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn two_fetches_of_one_file_take_turns() {
    let body = body();
    let server = serve(move |_, asked, out| file(asked, out, "1", &body));
    let it = Fetching::of(&[&server.url("/a")]);
    let derivation = it.derivation();
    let run = || fetch(&derivation, &it.config, it.work.path(), &mut |_| {}, &it.cancel).unwrap();
    std::thread::scope(|scope| {
        let others = [scope.spawn(run), scope.spawn(run)];
        others.map(|other| other.join().unwrap())
    });
    assert_eq!((server.asked().len(), it.files().len()), (1, 1));
}

#[test]
fn mirrors_are_asked_first_and_need_not_be_believed() {
    let mirror = serve(|_, asked, out| match asked.line.split(' ').nth(1).unwrap() {
        "/m/@a/b/b-1.0.0.tgz" | "/c/a/1.0.0" | "/u/x.tar" => file(asked, out, "1", &body()),
        "/p/a-1.0.tar.gz" => file(asked, out, "1", &body()),
        _ => whole(out, "200 OK", "", b"a wrong file"),
    });
    let origin = serve(|_, asked, out| file(asked, out, "1", &body()));
    let template = |path: &str| Some(Template::new(mirror.url(path)).unwrap());
    let prefix = |url: String| Prefix::new(url).unwrap();
    let mirrors = Mirrors {
        npm: template("/m/{name}/{file}"),
        pypi: template("/p/{file}"),
        crates: template("/c/{name}/{version}"),
        url: BTreeMap::from([(prefix(origin.url("/")), prefix(mirror.url("/u/")))]),
    };
    let here = origin.url("/x.tar");
    for location in ["npm:@a/b@1.0.0", "pypi:a@1.0#a-1.0.tar.gz", "crate:a@1.0.0", &here] {
        let mut it = Fetching::of(&[location]);
        it.config.mirrors = mirrors.clone();
        it.run().unwrap_or_else(|e| panic!("{location}: {e:?}"));
    }
    assert_eq!(origin.asked().len(), 0);
    let mut it = Fetching::of(&[&origin.url("/y.tar")]);
    it.config.mirrors = mirrors;
    it.run().unwrap();
    let tried: Vec<_> = it.progress.iter().filter(|p| matches!(p, Progress::Trying { .. })).collect();
    assert_eq!((tried.len(), origin.asked().len()), (2, 1));
}

#[test]
fn a_derivation_with_a_bad_location_is_refused() {
    let error = Fetching::of(&["file:///etc/passwd"]).run().unwrap_err();
    assert!(matches!(error, FetchError::Location(_)), "{error:?}");
}

#[test]
fn proxies_of_the_environment() {
    let origin = serve(|_, asked, out| file(asked, out, "1", &body()));
    let proxy = serve(|_, asked, out| match asked.line.starts_with("CONNECT") {
        true => whole(out, "403 Forbidden", "", b""),
        false => file(asked, out, "1", &body()),
    });
    let through = format!("http://user:pass%21@{}", proxy.address);
    let url = origin.url("/a?b=c");
    let it = Fetching::of(&[&url]);

    it.child(&[("HTTP_PROXY", Some(&through))]).unwrap();
    let asked = &proxy.asked()[0];
    assert_eq!(asked.line, format!("GET {url} HTTP/1.1"));
    assert_eq!(asked.headers["host"], origin.address);
    assert_eq!(asked.headers["proxy-authorization"], "Basic dXNlcjpwYXNzIQ==");
    assert_eq!(origin.asked().len(), 0);

    Fetching::of(&[&url]).child(&[("all_proxy", Some(&through)), ("NO_PROXY", Some("127.0.0.0/8"))]).unwrap();
    assert_eq!((proxy.asked().len(), origin.asked().len()), (1, 1));

    let secure = Fetching::of(&["https://assize.invalid/a"]);
    let said = secure.child(&[("https_proxy", Some(&through))]).unwrap_err();
    assert_eq!(proxy.asked().last().unwrap().line, "CONNECT assize.invalid:443 HTTP/1.1");
    assert!(said.contains("CONNECT proxy failed") && !said.contains("pass"), "{said}");
}

/// The roots are those of the operating system, which `SSL_CERT_FILE` stands for on Unix.
#[test]
fn certificates() {
    let plain = serve(|_, asked, out| file(asked, out, "1", &body()));
    let (server, roots, down) = {
        let down = plain.url("/a");
        let (config, roots) = tls();
        let to = down.clone();
        let server = serve_tls(config, move |_, asked, out| match asked.line.contains("/down") {
            true => whole(out, "302 Found", &format!("location: {to}\r\n"), b""),
            false => file(asked, out, "1", &body()),
        });
        (server, roots, down)
    };
    let port = server.address.rsplit_once(':').unwrap().1.to_owned();
    let url = |path: &str| format!("https://localhost:{port}{path}");
    let dir = tempfile::tempdir().unwrap();
    let roots_file = dir.path().join("roots.pem");
    fs::write(&roots_file, roots).unwrap();
    let trusting = [("SSL_CERT_FILE", roots_file.to_str()), ("SSL_CERT_DIR", None)];

    Fetching::of(&[&url("/a")]).child(&trusting).unwrap();
    let said = Fetching::of(&[&url("/a")]).child(&[]).unwrap_err();
    assert!(said.contains("UnknownIssuer") && said.contains("name its file in SSL_CERT_FILE"), "{said}");

    let said = Fetching::of(&[&url("/down")]).child(&trusting).unwrap_err();
    assert!(said.contains(&format!("redirects to {down}, which is not encrypted")), "{said}");
    assert_eq!(plain.asked().len(), 0);
}

#[test]
fn a_missing_client_is_named() {
    let empty = tempfile::tempdir().unwrap();
    let nowhere = [("PATH", empty.path().to_str()), ("CARGO_HOME", empty.path().to_str())];
    for (location, client, install) in [
        ("npm:is-number@7.0.0", "npm", "install Node.js"),
        ("pypi:six@1.16.0", "pip", "install Python's pip"),
        ("crate:itoa@1.0.9", "cargo", "install Rust's cargo"),
    ] {
        let said = Fetching::of(&[location]).child(&nowhere).unwrap_err();
        assert!(
            said.starts_with(&format!("{client} not found: {location} is fetched with it\n{install}")),
            "{said}"
        );
    }
}

const IS_NUMBER: &str =
    "sha512-41Cifkg6e8TylSpdtTpeLVMqvSBEVzTttHvERD741+pnZ8ANv0004MRL43QKPDlK9cGvNp6NZWZUBlbGXYxxng==";
const SIX_WHEEL: &str = "8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254";
const SIX_SOURCE: &str = "1e61c37477a1626458e36f7b1d82aa5c9b094fa4802892072e49de9c60c4c926";
const ITOA: &str = "af150ab688ff2122fcef229be89cb50dd66af9e01a4ff320cc137eecc9bacc38";

const FUTURES_UTIL: &str = "3d6401deb83407ab3da39eba7e33987a73c3df0c82b4bb5813ee871c19c41d48";

#[test]
fn npm_brings_a_tarball() {
    needs("npm", "install Node.js");
    let mut it = Fetching::of(&["npm:is-number@7.0.0"]);
    it.sri = IS_NUMBER.parse().unwrap();
    it.run().unwrap();
    assert!(it.progress.contains(&Progress::Running { client: "npm" }));
    assert_eq!(it.files().len(), 1);
    // The same package, and another hash.
    let mut it = Fetching::of(&["npm:is-number@7.0.0"]);
    it.sri = Sri::new(Algorithm::Sha512, vec![0; 64]).unwrap();
    let error = it.run().unwrap_err();
    assert!(matches!(&error, FetchError::Hash { found, .. } if found.to_string() == IS_NUMBER), "{error:?}");
    let error = Fetching::of(&["npm:is-number@7.0.99"]).run().unwrap_err();
    assert!(matches!(&error, FetchError::ClientFailed { client: "npm", .. }), "{error:?}");
}

#[test]
fn pip_says_where_files_are() {
    needs("pip", "install Python's pip");
    for (location, hash) in [
        ("pypi:six@1.16.0#six-1.16.0-py2.py3-none-any.whl", SIX_WHEEL),
        ("pypi:six@1.16.0#six-1.16.0.tar.gz", SIX_SOURCE),
        ("pypi:SIX@1.16", SIX_WHEEL),
        ("pypi:six@1.16.0", SIX_SOURCE),
    ] {
        let mut it = Fetching::of(&[location]);
        it.sri = sha256(hash);
        it.run().unwrap_or_else(|e| panic!("{location}: {e:?}"));
    }
    let error = Fetching::of(&["pypi:six@1.16.0#six-1.16.0.zip"]).run().unwrap_err();
    assert!(error.to_string().contains("six-1.16.0.tar.gz"), "{error}");
}

/// An index of our own, as pip may be configured to use: HTML, a login, another host for files.
#[test]
fn pip_is_configured() {
    needs("pip", "install Python's pip");
    let files = serve(|_, asked, out| file(asked, out, "1", &body()));
    let at = files.url("/f/a_b-1.0.tar.gz");
    let index = serve(move |_, _, out| {
        whole(
            out,
            "200 OK",
            "content-type: text/html\r\n",
            format!("<a href=\"{at}\">a_b-1.0.tar.gz</a>").as_bytes(),
        )
    });
    let url = format!("http://user:secret@{}/simple", index.address);
    Fetching::of(&["pypi:A.b@1.0"]).child(&[("PIP_INDEX_URL", Some(&url)), ("PIP_CERT", None)]).unwrap();
    let asked = &index.asked()[0];
    assert_eq!(asked.line, "GET /simple/a-b/ HTTP/1.1");
    assert_eq!(asked.headers["authorization"], "Basic dXNlcjpzZWNyZXQ=");
    assert!(asked.headers["accept"].contains("application/vnd.pypi.simple.v1+json"));
    assert!(!files.asked()[0].headers.contains_key("authorization"));
}

#[test]
fn cargo_brings_a_crate() {
    needs("cargo", "install Rust");
    let home = cargo_home();
    let env = [("CARGO_HOME", home.path().to_str())];
    let mut it = Fetching::of(&["crate:itoa@1.0.9"]);
    it.sri = sha256(ITOA);
    let said = it.child(&env).unwrap();
    assert!(said.contains("Running { client: \"cargo\" }"), "{said}");
    // Now it is in cargo's cache, so that neither cargo nor the network is needed.
    let mut it = Fetching::of(&["crate:itoa@1.0.9"]);
    (it.sri, it.config.offline) = (sha256(ITOA), true);
    let said = it.child(&[env[0], ("PATH", home.path().to_str())]).unwrap();
    assert!(!said.contains("Running"), "{said}");
}

#[test]
fn a_yanked_crate_still_comes() {
    needs("cargo", "install Rust");
    let home = cargo_home();
    let mut it = Fetching::of(&["crate:futures-util@0.3.30"]);
    it.sri = sha256(FUTURES_UTIL);
    it.child(&[("CARGO_HOME", home.path().to_str())]).unwrap();
    let said =
        Fetching::of(&["crate:itoa@0.0.99"]).child(&[("CARGO_HOME", home.path().to_str())]).unwrap_err();
    assert!(said.contains("could not find `itoa@0.0.99`"), "{said}");
}

/// A cargo home with an empty cache, and the configuration of the real one.
fn cargo_home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let real = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let real = real.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).unwrap();
    for name in ["config.toml", "config", "credentials.toml"] {
        let _ = fs::copy(real.join(name), home.path().join(name));
    }
    home
}

/// One fetch, and what was seen of it.
struct Fetching {
    locations: Vec<String>,
    sri: Sri,
    config: Config,
    work: TempDir,
    progress: Vec<Progress>,
    cancel: Arc<AtomicBool>,
}

impl Fetching {
    /// Of [`body`], if not told otherwise.
    fn of(locations: &[&str]) -> Self {
        Self {
            locations: locations.iter().map(|l| (*l).to_owned()).collect(),
            sri: sri(&body()),
            config: Config { retries: 2, retry_delay: Duration::from_millis(20), ..Config::default() },
            work: tempfile::tempdir().unwrap(),
            progress: Vec::new(),
            cancel: Arc::default(),
        }
    }

    fn run(&mut self) -> Result<PathBuf, FetchError> {
        self.progress.clear();
        let derivation = self.derivation();
        let mut seen = |step| self.progress.push(step);
        fetch(&derivation, &self.config, self.work.path(), &mut seen, &self.cancel)
    }

    fn derivation(&self) -> Fetch {
        let (locations, sri) = (self.locations.clone(), self.sri.clone());
        Fetch { name: Name::new("file").unwrap(), locations, sri, executable: false }
    }

    /// Runs in a process with other variables: its progress, or its error and hint.
    fn child(&self, variables: &[(&str, Option<&str>)]) -> Result<String, String> {
        let task = serde_json::json!({
            "locations": self.locations, "sri": self.sri.to_string(), "offline": self.config.offline,
        });
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(TASK, task.to_string()).stdin(Stdio::null());
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(proxy).env_remove(proxy.to_uppercase());
        }
        for (name, value) in variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let said = text.split(MARK).nth(1).unwrap_or_else(|| panic!("{text}")).to_owned();
        said.strip_prefix("ok ").map(str::to_owned).ok_or(said)
    }

    /// What is left in `work`.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.work.path()).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

const TASK: &str = "ASSIZE_TEST_FETCH";
const MARK: &str = "\n====\n";

/// Not a test: what [`Fetching::child`] runs.
#[test]
fn child() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let task: serde_json::Value = serde_json::from_str(&task).unwrap();
    let locations: Vec<String> = serde_json::from_value(task["locations"].clone()).unwrap();
    let mut it = Fetching::of(&locations.iter().map(String::as_str).collect::<Vec<_>>());
    it.sri = task["sri"].as_str().unwrap().parse().unwrap();
    it.config.offline = task["offline"].as_bool().unwrap();
    match it.run() {
        Ok(_) => println!("{MARK}ok {:?}{MARK}", it.progress),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            println!("{MARK}{text}\n{}{MARK}", error.hint().unwrap_or_default());
        }
    }
}

/// Breaks the first connection after `left` bytes.
fn breaking_once(
    left: usize,
    answer: impl Fn(&server::Asked, &mut dyn std::io::Write, &str, &[u8]) -> std::io::Result<()>
    + Send
    + Sync
    + 'static,
) -> Server {
    serve(move |n, asked, out| match n {
        0 => answer(asked, &mut Breaking { out, left }, "1", &body()),
        _ => answer(asked, out, "1", &body()),
    })
}

/// A server for `localhost`, and the CA that vouches for it.
fn tls() -> (rustls::ServerConfig, String) {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &ca, &ca_key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    (config, ca.pem())
}

/// Not the same twice in any window, so that a misplaced byte is noticed.
fn body() -> Vec<u8> {
    (0..LENGTH as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8).collect()
}

fn sri(bytes: &[u8]) -> Sri {
    Sri::new(Algorithm::Blake3, blake3::hash(bytes).as_bytes().to_vec()).unwrap()
}

fn sha256(hex: &str) -> Sri {
    Sri::new(Algorithm::Sha256, data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap()).unwrap()
}

#[track_caller]
fn needs(client: &str, install: &str) {
    let mut command = Command::new(client);
    let found = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(found.is_ok(), "{client} not found: {install}");
}
