use std::{collections::BTreeSet, fs};

use simulations::variant::Variant;

use super::{all, repository, simulate};

fn manual() -> String {
    fs::read_to_string(repository().join("docs/simulations.md")).unwrap()
}

/// What stands behind `$ simulate` is run, and what stands below it comes of it; `…` is what is left
/// out.
#[test]
fn the_manual_is_what_happens() {
    let manual = manual();
    let blocks = manual.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut commands = 0;
    for block in blocks {
        for part in format!("\n{block}").split("\n$ ").skip(1) {
            let (command, expected) = part.split_once('\n').unwrap_or((part, ""));
            let Some(arguments) = command.strip_prefix("simulate ") else {
                assert!(command.starts_with("cargo build -p simulations"), "{command}");
                continue;
            };
            let done = simulate(&arguments.split(' ').collect::<Vec<_>>());
            let found = String::from_utf8(done.stdout).unwrap();
            let said = String::from_utf8(done.stderr).unwrap();
            let mut left = found.as_str();
            for (n, piece) in expected.trim_end().split("…\n").enumerate() {
                let piece = piece.trim_end_matches('…');
                let at = left.find(piece).filter(|at| n > 0 || *at == 0);
                let at = at
                    .unwrap_or_else(|| panic!("$ {command}\n{found}{said}\nbut the manual has\n{expected}"));
                left = &left[at + piece.len()..];
            }
            commands += 1;
        }
    }
    assert!(commands >= 4, "only {commands} commands were found");
}

/// Every scenario, and every mistake, has its line, and there are no others.
#[test]
fn the_tables_are_complete() {
    let manual = manual();
    let cell = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let listed: BTreeSet<String> = manual.lines().filter_map(cell).collect();
    let scenarios = all().into_iter().map(|(name, _)| name);
    let variants = Variant::ALL.into_iter().map(|variant| variant.name().to_owned());
    assert_eq!(listed, scenarios.chain(variants).collect());
}
