//! The examples of `docs/policy.md`.
//!
//! A block of JSON is the roster, or a policy; a block of text behind it has what becomes of it: lines of
//! `those who got one thing | those who got another → verdict`, or the error.

use serde_json::Value;
use trust::{ledger::Voters, policy::Policy, roster::Roster, standing::Standings, verdict::judge};

use crate::support::{NOW, key, name, records, short};

/// The fenced blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let mut parts = page.split("```");
    let mut blocks = Vec::new();
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        blocks.push(block.split_once('\n').unwrap());
    }
    blocks
}

#[test]
fn the_examples_are_true() {
    let page = include_str!("../../../docs/policy.md");
    let mut roster = Roster::default();
    let mut policy: Option<Result<Policy, String>> = None;
    let mut checked = 0;
    for (language, text) in blocks(page) {
        match language {
            "json" => {
                let value: Value = serde_json::from_str(text).unwrap();
                if value.get("attesters").is_some() {
                    roster = Roster::parse(text).unwrap();
                } else {
                    assert!(!matches!(policy, Some(Err(_))), "an error of which nothing is said: {policy:?}");
                    let compiled = Policy::compile(&value["policy"], &roster, NOW);
                    policy = Some(compiled.map_err(|error| error.to_string()));
                }
            }
            "text" => {
                for line in text.lines() {
                    match policy.as_ref().unwrap() {
                        Ok(policy) => check(&roster, policy, line),
                        Err(error) => assert_eq!(error, line),
                    }
                    checked += 1;
                }
                policy = policy.filter(Result::is_ok);
            }
            other => panic!("a block of `{other}`"),
        }
    }
    assert!(checked >= 20, "only {checked} lines were found");
}

fn check(roster: &Roster, policy: &Policy, line: &str) {
    let (sides, expected) = line.split_once(" → ").unwrap();
    let mut said = Vec::new();
    for (digit, side) in ['1', '2'].into_iter().zip(sides.split('|')) {
        for who in side.split_whitespace() {
            let mut record = records(&format!("{who}:{digit}"));
            if who != "self" {
                record[0].attester = roster.get(&name(who)).unwrap().key;
            }
            said.extend(record);
        }
    }
    let voters = Voters::new(roster, Some(key("self")), &Standings::default(), NOW);
    let claims = voters.claims(&said[0].action, None, &said, None);
    let verdict = judge(&claims, &policy.for_package(&name("lua")));
    let alarm = if verdict.reasoning.alarm { ", with an alarm" } else { "" };
    let found = format!("{}{alarm}", short(&verdict).trim_end_matches(" 1"));
    assert_eq!(found, expected, "{line}: {verdict}");
}
