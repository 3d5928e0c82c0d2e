//! Ways in for tests that feed hostile bytes to what is private here. Not for programs.

use super::{Evaluation, error::Fault, nesting, wire};

/// Reads a worker's answer, and writes it again.
///
/// # Errors
///
/// What the worker reports, or what is wrong with the answer.
pub fn answer(bytes: &[u8]) -> Result<Vec<u8>, super::EvalError> {
    let Evaluation { roots, derivations, sources, json, attributes } = wire::read(bytes)?;
    let mut again = Vec::new();
    let answer = wire::Answer::new(&mut again, u64::MAX);
    derivations.values().for_each(|derivation| answer.derivation(&derivation.to_bytes()));
    let wanted = derivations.into_keys().collect();
    let outcome = wire::Outcome { roots, wanted, sources, json, attributes };
    answer.end(Ok(outcome)).map_err(|e| Fault::Worker { why: e.to_string() })?;
    drop(answer);
    Ok(again)
}

/// The imports that a file of Jsonnet is found to have before it is parsed: the path, and the byte
/// at which the keyword is.
///
/// # Errors
///
/// It nests too deep, or has brackets or quotes that do not match.
pub fn imports(text: &str) -> Result<Vec<(String, usize)>, Fault> {
    let imports = nesting::scan(text).map_err(nesting::Found::fault)?;
    Ok(imports.into_iter().map(|import| (import.path, import.byte)).collect())
}
