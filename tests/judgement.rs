//! The vectors of judgement: files under `vectors/{roster,policy,verdict}/`, each with what is said of it.
//!
//! `<name>.json` has the case, `<name>.expect` what becomes of it: `ok` and notes, a verdict with its
//! reasons, or the error. With `ASSIZE_BLESS=1` missing `.expect` files are written, to be read and
//! committed.
//!
//! A roster is a `trust.json`. A policy is the field `policy`, with the roster that it names and the time.
//! A verdict has, besides, what was signed about one action, whose output is `out`; its keys are those of
//! 32 equal bytes, from 1 on.

use std::{collections::BTreeSet, fs};

use protocol::{
    evidence::{Equivocation, Evidence, Revocation},
    id::{ActionId, StatementId},
    key::{AttesterKey, Context, Signature, SigningKey},
    name::Name,
    output::{Output, Outputs},
    statement::{Attestation, Body, Ending, Failure, Platform, Signed, Statement, succession},
    witness::{TranscriptHash, Witness},
};
use serde_json::{Value, json};
use tests::{chain, vectors};
use trust::{
    ledger::{Checked, Execution, Record, Said, Voters},
    policy::Policy,
    roster::Roster,
    standing::Standings,
    verdict::{Outcome, judge},
};

fn roster(text: &str) -> String {
    match Roster::parse(text) {
        Ok(roster) => {
            let again = Roster::parse(&roster.to_json()).unwrap();
            assert_eq!(again, roster);
            "ok".into()
        }
        Err(error) => chain(&error),
    }
}

/// A case of a policy or a verdict, and its policy.
fn policy(case: &Value) -> Result<(Roster, Policy), String> {
    let roster = Roster::parse(&case["roster"].to_string()).unwrap();
    let policy = Policy::compile(&case["policy"], &roster, case["now"].as_u64().unwrap());
    policy.map(|policy| (roster, policy)).map_err(|error| chain(&error))
}

fn compiled(case: &Value) -> String {
    match policy(case) {
        Ok((_, policy)) => {
            let lines = policy.notes().iter().map(|note| format!("\n{note}")).collect::<String>();
            format!("ok{lines}")
        }
        Err(error) => error,
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("`{field}` of {value}"))
}

fn key(text: &str) -> (AttesterKey, SigningKey) {
    let keys = (1..=u8::MAX).map(|n| SigningKey::from_bytes(&[n; 32]));
    let mut keys = keys.map(|key| (AttesterKey::of(&key), key));
    keys.find(|(key, _)| key.to_string() == text).unwrap_or_else(|| panic!("{text}"))
}

fn bytes(hex: &str) -> [u8; 32] {
    let byte = |n: usize| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap();
    std::array::from_fn(byte)
}

fn outputs(value: &Value) -> Option<Outputs> {
    let one = |value: &Value| {
        let (name, nar) = (value[0].as_str().unwrap(), value[1].as_str().unwrap());
        let output = Output { nar: nar.parse().unwrap(), size: value[2].as_u64().unwrap() };
        (Name::new(name).unwrap(), output)
    };
    value.as_array().map(|list| list.iter().map(one).collect())
}

fn platform(value: &Value) -> Platform {
    let name = |n: usize, default: &str| Name::new(value[n].as_str().unwrap_or(default)).unwrap();
    Platform { engine: name(0, "wasmtime-48.0.8"), arch: name(1, "x86_64"), os: name(2, "linux") }
}

fn action() -> ActionId {
    ActionId::from_bytes([1; 32])
}

/// Signs a statement; what is before it in its feed is of no matter here.
fn signed(value: &Value) -> Signed {
    let (attester, signing) = key(text(value, "by"));
    let seq = value["seq"].as_u64().unwrap();
    let body = if let Some(outputs) = outputs(&value["built"]) {
        let witness = value["witness"].as_str().map(|hex| Witness::from_bytes(bytes(hex)));
        let platform = platform(&value["platform"]);
        Body::Built(Attestation { action: action(), outputs, witness, platform })
    } else if value["failed"] == "trap" {
        let platform = platform(&value["platform"]);
        Body::Failed(Failure { action: action(), step: 1, ending: Ending::Trap, platform })
    } else if let Some(range) = value["retract"].as_array() {
        Body::Retract { first: range[0].as_u64().unwrap(), last: range[1].as_u64().unwrap() }
    } else {
        let (successor, signing) = key(text(value, "succeed"));
        let consent = Signature::sign(&signing, Context::Succession, &succession(&attester, &successor));
        Body::Succeed { successor, consent }
    };
    let prev = StatementId::from_bytes(if seq == 0 { [0; 32] } else { [1; 32] });
    Statement { attester, seq, prev, time: 0, body }.sign(&signing).unwrap()
}

fn list<'v>(value: &'v Value, field: &str) -> impl Iterator<Item = &'v Value> {
    value[field].as_array().into_iter().flatten()
}

fn evidence(case: &Value, statements: &[Signed]) -> Vec<Evidence> {
    let mut evidence: Vec<_> = statements.iter().cloned().map(Evidence::Statement).collect();
    for revocation in list(case, "revocations") {
        let (_, signing) = key(revocation[0].as_str().unwrap());
        evidence.push(Evidence::Revocation(Revocation::sign(&signing, revocation[1].as_u64().unwrap())));
    }
    for by in list(case, "equivocations") {
        let fork = |nar: u8| {
            let nar = protocol::id::NarHash::from_bytes([nar; 32]).to_string();
            signed(&json!({ "by": by, "seq": 99, "built": [["out", nar, 1]] }))
        };
        evidence.push(Evidence::Equivocation(Equivocation::new(fork(1), fork(2)).unwrap()));
    }
    evidence
}

/// Executions here of other actions, and what witnesses of these were found right or wrong.
fn checked(case: &Value, voters: &Voters) -> Checked {
    let mut checked = Checked::default();
    let transcript = TranscriptHash::from_bytes([9; 32]);
    for (n, one) in list(case, "checked").enumerate() {
        let (action, attester) = (ActionId::from_bytes([n as u8; 32]), key(text(one, "by")).0);
        let outputs = outputs(&one["built"]).unwrap();
        let of = if one["right"] == true { attester } else { key(text(case, "self")).0 };
        let witness = Some(transcript.witness(&of, &action));
        let said = Said::Built { outputs: outputs.clone(), witness, platform: platform(&Value::Null) };
        let own = Execution { outputs, platform: platform(&Value::Null), transcript: Some(transcript) };
        let record = Record { action, attester, seq: one["seq"].as_u64().unwrap(), said };
        checked.note(&voters.claims(&action, None, [&record], Some(&own)));
    }
    checked
}

fn verdict(case: &Value) -> String {
    let (roster, policy) = policy(case).unwrap();
    let statements: Vec<_> = list(case, "statements").map(signed).collect();
    let standings: Standings = evidence(case, &statements).iter().collect();
    let own = key(text(case, "self")).0;
    let mut voters = Voters::new(&roster, Some(own), &standings, case["now"].as_u64().unwrap());
    if policy.wants_known() {
        let known = checked(case, &voters);
        voters = voters.knowing(known);
    }
    let records: Vec<_> = statements.iter().filter_map(Record::of).collect();
    let own = outputs(&case["own"]).map(|outputs| {
        let transcript = case["transcript"].as_str().map(|hex| TranscriptHash::from_bytes(bytes(hex)));
        Execution { outputs, platform: platform(&Value::Null), transcript }
    });
    let names = BTreeSet::from([Name::out()]);
    let claims = voters.claims(&action(), Some(&names), &records, own.as_ref());
    let verdict = judge(&claims, &policy.for_package(&Name::new(text(case, "package")).unwrap()));
    let mut lines = vec![verdict.to_string()];
    if let Outcome::Accepted { outputs } = &verdict.outcome {
        lines.extend(outputs.iter().map(|(name, output)| format!("{name} {} {}", output.nar, output.size)));
    }
    for (who, mute) in &claims.mute {
        lines.push(format!("{who} cannot vote: {}", serde_json::to_string(mute).unwrap()));
    }
    for uncounted in &verdict.reasoning.uncounted {
        let (seq, why) = (uncounted.seq.unwrap(), serde_json::to_string(&uncounted.why).unwrap());
        lines.push(format!("{} at {seq} does not count: {why}", uncounted.voter));
    }
    lines.join("\n")
}

#[test]
fn every_vector_says_what_is_expected() {
    let checked = vectors(|path| {
        let section = path.parent()?.file_name()?.to_str()?;
        if path.extension()? != "json" {
            return None;
        }
        let text = fs::read_to_string(path).unwrap();
        let case = || serde_json::from_str(&text).unwrap();
        match section {
            "roster" => Some(roster(&text)),
            "policy" => Some(compiled(&case())),
            "verdict" => Some(verdict(&case())),
            _ => None,
        }
    });
    assert!(checked >= 100, "only {checked} vectors were found");
}
