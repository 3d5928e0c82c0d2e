//! In-toto envelopes (SPEC §12.1), verified as others would: securesystemslib, with which in-toto
//! itself verifies, checks the signature, and the models of in-toto-attestation what is signed.
//!
//! pip fetches both once, pinned by hash in `requirements.txt`, into a directory that lasts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use data_encoding::BASE64;
use protocol::id::NarHash;
use serde_json::{Value, json};
use tests::{Said, Sandbox, cache, must, repository, said, said_to};

const PROJECT: &str = "
local assize = import 'assize.libsonnet';
local tools = assize.tools(assize.source('files.wasm'), assize.source('unpack.wasm'));
{
  a: tools.write({ name: 'a', file: 'a.txt', text: 'a\\n' }),
  b: tools.select({ name: 'b', from: $.a, globs: ['*.txt'] }),
}
";

/// What SLSA requires of provenance v1, and the models do not: they are of protobuf, where all may
/// be absent. A field that they do not have is refused.
const MODELS: &str = r#"
import json, sys, urllib.parse
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1 import statement_pb2

payload = sys.stdin.read()
statement = Statement.copy_from_pb(json_format.Parse(payload, statement_pb2.Statement()))
statement.validate()
if statement.pb.predicate_type != "https://slsa.dev/provenance/v1":
    raise ValueError("another predicate")
provenance = json_format.ParseDict(json.loads(payload)["predicate"], Provenance())
build, run = provenance.build_definition, provenance.run_details
if not len(build.external_parameters):
    raise ValueError("externalParameters required")
for uri in [build.build_type, run.builder.id]:
    if not urllib.parse.urlsplit(uri).scheme:
        raise ValueError(f"no URI: {uri!r}")
for one in [*statement.pb.subject, *build.resolved_dependencies]:
    print(one.name, one.digest["blake3"])
"#;

/// A Python that has the packages of `requirements.txt`.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let home = cache().join("python");
        let python = home.join("bin/python");
        let requirements = repository().join("tests/requirements.txt");
        // Copied last. Without its interpreter, which the system may have replaced, it is of no use.
        let done = home.join("requirements.txt");
        let works = Command::new(&python).arg("--version").output().is_ok_and(|said| said.status.success());
        if works && fs::read(&done).ok() == fs::read(&requirements).ok() {
            return python;
        }
        let _ = fs::remove_dir_all(&home);
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&home);
        must(venv, "python3 (3.10 or later) with venv and pip, as Debian's python3-venv has them");
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--require-hashes", "--requirement"]).arg(&requirements);
        must(pip, "pip, with a way to PyPI");
        fs::copy(&requirements, done).expect("a file of the cache");
        python
    })
}

fn script(text: &str) -> Command {
    let mut command = Command::new(python());
    // Isolated: with no packages but its own.
    command.args(["-I", "-c", text]);
    command
}

/// The script of the manual, on an envelope.
fn verify(key: &str, envelope: &Value) -> Said {
    let manual = fs::read_to_string(repository().join("docs/trust.md")).expect("the manual");
    let text = manual.split("```python\n").nth(1).and_then(|rest| rest.split("```").next());
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), envelope.to_string()).expect("a temporary file");
    let mut command = script(text.expect("the script of the manual"));
    command.arg(key).arg(file.path());
    said(command)
}

fn models(payload: &Value) -> Said {
    said_to(script(MODELS), payload.to_string().as_bytes())
}

/// A project of two packages, `b` made of `a`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_assize"));
    for seed in ["files.wasm", "unpack.wasm"] {
        let bytes = fs::read(repository().join("packages/stage0/seeds").join(seed)).expect("the seed");
        sandbox.write(seed, bytes);
    }
    sandbox.write("build.jsonnet", PROJECT);
    sandbox
}

fn payload(envelope: &Value) -> Vec<u8> {
    BASE64.decode(envelope["payload"].as_str().expect("a payload").as_bytes()).expect("base64")
}

#[test]
fn other_peoples_tools_verify_envelopes() {
    let sandbox = sandbox();
    let hex = |attribute: &str| sandbox.build(attribute).parse::<NarHash>().expect("a hash").to_hex();
    let (a, b) = (hex("a"), hex("b"));
    let key = sandbox.ok(["key", "show"]).trim_end().to_owned();
    let envelope: Value =
        serde_json::from_str(&sandbox.ok(["attest", "export", "--in-toto", "b", "-o", "-"])).expect("JSON");
    let said = verify(&key, &envelope);
    assert_eq!(said.code, 0, "{}", said.err);
    assert_eq!(said.out.trim_end().as_bytes(), payload(&envelope));

    let statement: Value = serde_json::from_str(&said.out).expect("JSON");
    let found = models(&statement);
    assert_eq!(found.code, 0, "{}", found.err);
    let lines: Vec<_> = found.out.lines().collect();
    assert_eq!(lines[..2], [format!("out {b}"), format!("from {a}")], "{}", found.out);
    // They do refuse what is not as it should be.
    for (place, value) in [
        ("/subject", json!([])),
        ("/subject/0/digest", json!({})),
        ("/predicateType", json!("")),
        ("/predicate/buildDefinition/buildType", json!("wasi-p1/1")),
        ("/predicate/runDetails/builder", json!({ "name": key })),
    ] {
        let mut other = statement.clone();
        *other.pointer_mut(place).expect("a field") = value;
        assert_ne!(models(&other).code, 0, "{place}");
    }
}

#[test]
fn other_peoples_tools_refuse_what_was_not_signed() {
    let sandbox = sandbox();
    sandbox.build("a");
    let key = sandbox.ok(["key", "show"]).trim_end().to_owned();
    let stranger = Sandbox::new(env!("CARGO_BIN_EXE_assize")).ok(["key", "show"]).trim_end().to_owned();
    let envelope: Value =
        serde_json::from_str(&sandbox.ok(["attest", "export", "--in-toto", "a", "-o", "-"])).expect("JSON");
    let refused = |what: &str, key: &str, envelope: &Value| {
        let said = verify(key, envelope);
        assert_eq!((said.code, &*said.out), (1, ""), "{what}");
        assert!(said.err.contains("VerificationError: Accepted signatures"), "{what}: {}", said.err);
    };
    let with = |place: &str, value: String| {
        let mut other = envelope.clone();
        *other.pointer_mut(place).expect("a field") = value.into();
        other
    };
    let payload = payload(&envelope);
    for at in [0, payload.len() / 2, payload.len() - 1] {
        let mut flipped = payload.clone();
        flipped[at] ^= 1;
        refused("a bit of the payload", &key, &with("/payload", BASE64.encode(&flipped)));
    }
    refused("another type", &key, &with("/payloadType", "application/vnd.in-toto+jsom".into()));
    let mut signature = BASE64.decode(envelope["signatures"][0]["sig"].as_str().unwrap().as_bytes()).unwrap();
    signature[40] ^= 1;
    refused("a bit of the signature", &key, &with("/signatures/0/sig", BASE64.encode(&signature)));
    refused("another key", &stranger, &envelope);
    refused("another key, said to have signed", &stranger, &with("/signatures/0/keyid", stranger.clone()));
    assert_eq!(verify(&key, &envelope).code, 0);
}
