//! Files that commands read and write: whole or not at all, and `-` for the standard streams.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use crate::{
    exit::{CliError, Code},
    output::Stdout,
};

/// Whether a path means stdin or stdout.
pub(crate) fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// Writes a file beside its name until it is whole: what fails leaves what was there.
pub(crate) fn write<T>(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> Result<T, CliError>,
) -> Result<T, CliError> {
    if is_standard(path) {
        return content(&mut Stdout);
    }
    let cannot = |e: io::Error| {
        CliError::new(Code::Failed, format!("cannot write `{}`: {e}", path.display()))
            .hint("name a file in a directory that exists and has space")
    };
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::NamedTempFile::new_in(directory).map_err(cannot)?;
    let mut writer = io::BufWriter::with_capacity(1 << 20, file);
    let result = content(&mut writer)?;
    let file = writer.into_inner().map_err(|e| cannot(e.into_error()))?;
    file.persist(path).map_err(|e| cannot(e.error))?;
    Ok(result)
}

/// Reads all of a file, of which there may be at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let cannot =
        |e: io::Error| CliError::new(Code::NotFound, format!("cannot read `{}`: {e}", path.display()));
    let mut from: Box<dyn Read> =
        if is_standard(path) { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(cannot)?) };
    let mut bytes = Vec::new();
    from.by_ref().take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    match bytes.len() as u64 > limit {
        true => Err(CliError::new(
            Code::Failed,
            format!("`{}` has more than the {limit} bytes that are allowed", path.display()),
        )),
        false => Ok(bytes),
    }
}
