//! The dashboard of a node, in a real browser, and as its enemies ask for it.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use protocol::{
    id::ActionId,
    name::Name,
    nar::Writer,
    output::{Output, Outputs},
};
use serde_json::Value;
use tests::{
    machine::{Machine, PATIENCE},
    miscompiler, must,
    npm::Script,
};

const ASSIZE: &str = env!("CARGO_BIN_EXE_assize");

/// What a browser must not obey.
const TAG: &str = "<img src=x onerror=alert(1)>";

/// And what a reader must not be deceived by.
const HOSTILE: &str = "<img src=x onerror=alert(1)>\u{202e}\u{1b}]0;owned\u{7}";

/// A dashboard as somebody with a socket asks for it.
struct Asker {
    host: String,
    cookie: String,
}

impl Asker {
    /// Takes the token to the door.
    fn new(machine: &Machine) -> Self {
        let url = machine.sandbox.ok(["dashboard"]);
        let (host, token) =
            url.trim().strip_prefix("http://").and_then(|u| u.split_once("/?token=")).expect("a URL");
        let mut this = Self { host: host.into(), cookie: String::new() };
        let welcome = this.get(&format!("/?token={token}"));
        assert!(welcome.starts_with("HTTP/1.1 303"), "{welcome}");
        let cookie = welcome.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Strict"), "{cookie}");
        this.cookie = cookie.split(';').next().expect("its value").into();
        this
    }

    /// The answer to a request with these lines in its head, beside those that every one has.
    fn ask(&self, request: &str, head: &[&str]) -> String {
        let mut stream = TcpStream::connect(&self.host).expect("the dashboard");
        let lines: String = head.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("{request} HTTP/1.1\r\n{lines}Content-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("asked");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        String::from_utf8(answer).expect("text")
    }

    fn get(&self, page: &str) -> String {
        let (host, cookie) = (format!("Host: {}", self.host), format!("Cookie: {}", self.cookie));
        self.ask(&format!("GET {page}"), &[&host, &cookie])
    }

    /// Looks until a page says it.
    fn finds(&self, page: &str, what: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.get(page);
            if found.contains(what) {
                return found;
            }
            assert!(Instant::now() < end, "no `{what}` in {page}:\n{found}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Three machines: Alice builds, Mallory says otherwise, and Carol, who sees both, rebuilds one of two.
/// The other one, which is made to harm.
fn three() -> ([Machine; 3], ActionId) {
    let [alice, mallory, carol] = [[""; 0].as_slice(), &[], &["--watch"]].map(|flags| {
        let machine = flags.iter().fold(Machine::new(ASSIZE), |machine, flag| machine.with(flag));
        machine.sandbox.ok(["key", "show"]);
        machine
    });
    miscompiler::project(&mallory.sandbox);
    carol.sandbox.configure("{ watch: { packages: ['double'] } }");
    let [alice, mallory, carol] = [alice, mallory, carol].map(Machine::start);
    carol.sandbox.ok(["trust", "add", "alice", &alice.key()]);
    carol.sandbox.ok(["trust", "add", "mallory", &mallory.key(), "--note", TAG]);
    for other in [&alice, &mallory] {
        carol.sandbox.ok(["peer", "add", &other.address]);
    }
    // What she says of two things that Alice builds: another one, and what is made to harm.
    alice.sandbox.ok(["build", "a"]);
    let text = action(&alice, "a");
    miscompiler::project(&alice.sandbox);
    alice.sandbox.ok(["build", "double"]);
    let double = action(&alice, "double");
    mallory.sandbox.configure("{ attest: false }");
    mallory.sandbox.ok(["build", "miscompiled"]);
    let wrong = action(&mallory, "miscompiled");
    let wrong = mallory.store().realisation(&wrong).expect("known").expect("built").outputs;
    mallory.says(double, wrong, None);
    let long = "x".repeat(10 << 20);
    let files = [(HOSTILE, format!("{HOSTILE}\n")), ("text", format!("<script>alert(2)</script>\n{long}"))];
    let mut nar = Writer::new(Vec::new());
    nar.directory().expect("written");
    for (name, content) in &files {
        nar.entry(name.as_bytes()).expect("written");
        nar.file(false, content.len() as u64, content.as_bytes()).expect("written");
    }
    nar.end().expect("written");
    let nar = nar.finish().expect("written");
    let admitted = mallory.store().admit(&nar[..], None, u64::MAX).expect("an archive");
    let harm: Outputs = [(Name::out(), Output { nar: admitted.hash, size: admitted.size })].into();
    mallory.says(text, harm, None);
    ([alice, mallory, carol], text)
}

/// The action of an attribute that was built there.
fn action(machine: &Machine, attribute: &str) -> ActionId {
    let shown = machine.sandbox.run(["why", attribute, "--json"]).out;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    shown["data"]["action"].as_str().and_then(|action| action.parse().ok()).expect("an action")
}

#[test]
fn a_browser_sees_what_the_node_knows() {
    let ([_alice, _mallory, carol], harm) = three();
    let asker = Asker::new(&carol);
    // What that says of others depends on whom she has heard by then.
    asker.finds("/builds", "</span> double act:");
    asker.finds("/builds", "not watched: a ");
    asker.finds("/disagreements", "alice, self ≠ mallory");
    let look = Script::new("browser", "look.mjs");
    let chromium =
        std::env::var_os("CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
    let mut version = Command::new(&chromium);
    version.arg("--version");
    must(version, "chromium (of Debian; another one by the environment variable CHROMIUM)");
    let url = carol.sandbox.ok(["dashboard"]);
    let mut command = look.command();
    command.arg(url.trim()).env("CHROMIUM", chromium);
    // Where screenshots are wanted: docs/dashboard.md says how they are made.
    command.args(std::env::var_os("ASSIZE_SCREENSHOTS"));
    let said = command.output().expect("Node.js starts");
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{errors}");
    let pages: Vec<Value> =
        said.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    let wrong: Vec<_> = pages.iter().filter(|page| page["wrong"] != Value::Array(vec![])).collect();
    assert!(wrong.is_empty(), "{}", serde_json::to_string_pretty(&wrong).expect("JSON"));
    let text = |name: &str| {
        let page = pages.iter().find(|page| page["name"] == name);
        page.and_then(|page| page["text"].as_str()).unwrap_or_else(|| panic!("no page `{name}`"))
    };
    for (page, says) in [
        ("overview", "disagreements"),
        ("packages", "double"),
        ("disagreements", "mallory"),
        ("attesters", "witnesses verified"),
        ("builds", "not watched: a "),
        ("policy", "majority"),
        ("peers", "connected"),
        ("difference-double", "i32.const"),
        ("package-double", "alice: agrees"),
        ("attester-alice", "proven to have executed"),
        ("attester-mallory", "proven wrong by executions here: 1"),
        ("policy-tried", "you would lose"),
        ("nothing", "0 found"),
        ("packages-plain", "double"),
        ("disagreements-plain", "mallory"),
    ] {
        assert!(text(page).contains(says), "{page}: {}", text(page));
    }
    // What was made to harm is seen for what it is.
    assert!(text("attester-mallory").contains(TAG));
    let difference = text("difference-_");
    assert!(difference.contains(&format!("{TAG}\\u{{202e}}\\u{{1b}}]0;owned")), "{difference}");
    assert!(difference.contains("<script>alert(2)</script>") && difference.len() < 1 << 20, "{difference}");
    // Nor does a terminal obey it, or a page in a file.
    let harm = harm.to_string();
    for args in [&["audit", "diff", &harm][..], &["audit", "diff", &harm, "--json"]] {
        let said = carol.sandbox.ok(args);
        assert!(said.len() < 1 << 20 && said.contains("onerror"), "{said}");
        assert!(!said.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{said}");
    }
    carol.sandbox.ok(["audit", "diff", &harm, "--html", "diff.html"]);
    let html = fs::read_to_string(carol.sandbox.project().join("diff.html")).expect("a page");
    assert!(!html.contains("<img") && !html.contains("<script") && html.contains("&lt;img"), "{html}");
}

/// Only who has the token is answered, and only if no other site makes it ask.
#[test]
fn nobody_else_sees_it() {
    let machine = Machine::new(ASSIZE).start();
    let asker = Asker::new(&machine);
    let (host, cookie) = (format!("Host: {}", asker.host), format!("Cookie: {}", asker.cookie));
    let page = asker.get("/");
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("Overview"), "{page}");
    for header in [
        "content-security-policy: default-src 'none';",
        "x-content-type-options: nosniff",
        "referrer-policy: same-origin",
        "cache-control: no-store",
    ] {
        assert!(page.contains(header), "{header}: {page}");
    }
    let name = asker.cookie.split('=').next().expect("its name");
    let wrong = format!("Cookie: {name}=0123456789abcdef0123456789abcdef");
    let own = format!("Origin: http://{}", asker.host);
    let nowhere = "/disagreements/act:0000/download";
    for (request, head, code) in [
        ("GET /", vec![&*host], 401),
        ("GET /", vec![&*host, &wrong], 401),
        ("GET /style.css", vec![&*host], 401),
        ("GET /?token=0123456789abcdef", vec![&*host], 401),
        ("GET /", vec!["Host: evil.example", &cookie], 421),
        ("GET /", vec![&*host, &cookie, "Origin: http://evil.example"], 403),
        (&format!("POST {nowhere}"), vec![&*host, &cookie], 403),
        (&format!("POST {nowhere}"), vec![&*host, &cookie, "Origin: http://evil.example"], 403),
        (&format!("POST {nowhere}"), vec![&*host, &cookie, &own], 404),
        ("DELETE /", vec![&*host, &cookie], 405),
        ("GET /nothing", vec![&*host, &cookie], 404),
        ("GET /packages/act:garbage", vec![&*host, &cookie], 404),
        ("GET /attesters/..%2f..", vec![&*host, &cookie], 404),
        ("GET /packages?part=many", vec![&*host, &cookie], 400),
        ("GET /policy?rule=garbage", vec![&*host, &cookie], 400),
        ("GET /packages?part=99999999&q=%00%ff", vec![&*host, &cookie], 200),
    ] {
        let answer = asker.ask(request, &head);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{request} {head:?}: {answer}");
    }
    // The token is in no page.
    let token = asker.cookie.split('=').nth(1).expect("its value");
    assert!(!page.split("\r\n\r\n").nth(1).expect("a body").contains(token));
    // Whoever comes and says nothing keeps nobody else out.
    let silent: Vec<_> = (0..32).map(|_| TcpStream::connect(&asker.host).expect("connected")).collect();
    let garbage = TcpStream::connect(&asker.host).expect("connected");
    (&garbage).write_all(&[0xff; 4096]).expect("written");
    let _ = garbage.shutdown(Shutdown::Write);
    assert!(asker.get("/peers").starts_with("HTTP/1.1 200"));
    drop(silent);
    // Nobody may have it from elsewhere, and it can be left out.
    let other = Machine::new(ASSIZE);
    other.sandbox.fails(
        &["node", "run", "--listen", "/ip4/127.0.0.1/tcp/0", "--dashboard", "0.0.0.0:0"],
        2,
        &["not an address of this machine alone"],
    );
    other.sandbox.fails(&["dashboard"], 20, &["no node runs"]);
    let other = other.with("--no-dashboard").start();
    other.sandbox.fails(&["dashboard"], 4, &["has no dashboard"]);
    assert!(fs::read_dir(other.sandbox.home()).expect("the store").count() > 0);
}
