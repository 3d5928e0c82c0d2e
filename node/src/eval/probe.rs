//! Ways in for tests that feed hostile bytes to what is private here. Not for programs.

use super::{error::Fault, nesting, wire};

/// Reads a worker's answer, and writes it again.
///
/// # Errors
///
/// What the worker reports, or what is wrong with the answer.
pub fn answer(bytes: &[u8]) -> Result<Vec<u8>, super::EvalError> {
    wire::decode(bytes).map(|evaluation| wire::encode(Ok(evaluation), u64::MAX))
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
