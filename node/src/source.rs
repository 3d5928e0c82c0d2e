//! Files of a project on their way into the store.

use std::{
    io,
    path::{Path, PathBuf},
};

use protocol::{
    glob::{Glob, GlobError},
    id::NarHash,
};
use store::Store;

use crate::eval::PackFailed;

/// Why a source was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A pattern is none.
    #[error("a pattern of the source `{path}` is none")]
    Pattern {
        /// The source.
        path: PathBuf,
        /// Why not.
        #[source]
        source: GlobError,
    },
    /// It cannot be packed.
    #[error("the source `{path}` cannot be packed")]
    Pack {
        /// The source.
        path: PathBuf,
        /// Why not.
        #[source]
        source: store::PackError,
    },
    /// It is not what was evaluated a moment ago, or the store refuses it.
    #[error("the source `{path}` was not taken: did it change since it was evaluated?")]
    Admit {
        /// The source.
        path: PathBuf,
        /// Why not.
        #[source]
        source: store::AdmitError,
    },
    /// No room for it.
    #[error("cannot make a temporary file in the store")]
    Temp(#[source] io::Error),
}

/// Packs a path into the store; it must give the archive that was evaluated.
///
/// # Errors
///
/// [`SourceError`].
pub fn take(store: &Store, path: &Path, exclude: &[String], hash: NarHash) -> Result<(), SourceError> {
    let globs: Result<Vec<_>, _> = exclude.iter().map(|pattern| Glob::new(pattern.as_str())).collect();
    let globs = globs.map_err(|source| SourceError::Pattern { path: path.into(), source })?;
    let mut file = store.temp().map_err(SourceError::Temp)?;
    store::pack(path, &globs, &mut file).map_err(|source| SourceError::Pack { path: path.into(), source })?;
    let admitted = store.admit_file(file, Some(hash));
    admitted.map(drop).map_err(|source| SourceError::Admit { path: path.into(), source })
}

/// Hashes what [`take`] would take: how evaluation knows a source.
///
/// # Errors
///
/// Which file cannot be packed, and why.
pub fn hash(path: &Path, exclude: &[Glob]) -> Result<NarHash, PackFailed> {
    let mut hasher = store::HashingWriter::sink();
    match store::pack(path, exclude, &mut hasher) {
        Ok(_) => Ok(hasher.finish().1),
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |e| format!(": {e}"));
            Err(PackFailed { path: path.into(), cause: format!("{error}{cause}") })
        }
    }
}
