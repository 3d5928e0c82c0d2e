//! Small files that people and commands change: read whole, replaced whole, one process at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::Path,
};

/// Reads a file of at most `limit` bytes; `None` if there is none. What is behind is not read.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Option<String>> {
    let mut text = String::new();
    match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file?.take(limit).read_to_string(&mut text).map(|_| Some(text)),
    }
}

/// Replaces a file by the text that `change` gives, durably, whole or not at all; `lock` lies
/// beside it and keeps others out meanwhile. `failed` is told what could not be done.
pub(crate) fn change<T, E>(
    path: &Path,
    lock: &str,
    failed: impl Fn(&'static str, io::Error) -> E,
    change: impl FnOnce() -> Result<(T, String), E>,
) -> Result<T, E> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(dir).map_err(|e| failed("make the directory of", e))?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(lock));
    let lock = lock.map_err(|e| failed("lock", e))?;
    lock.lock().map_err(|e| failed("lock", e))?;
    let (result, text) = change()?;
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|e| failed("write", e))?;
    Ok(result)
}
