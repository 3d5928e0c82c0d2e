//! A log in a file that does not grow without end.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Bytes of the file, and of the one before, which has `.1` behind its name.
const MOST: u64 = 8 << 20;

/// The file, open.
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl LogFile {
    /// Goes on behind what is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, len })
    }

    /// Writes a line. What cannot be written is lost: that is no reason to stop.
    pub(crate) fn write(&mut self, line: &str) {
        if self.len > MOST {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            let renamed = std::fs::rename(&self.path, before);
            if let Ok(new) = renamed.and_then(|()| Self::open(&self.path)) {
                *self = new;
            }
        }
        let line = format!("{line}\n");
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.len += line.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = "x".repeat(1 << 20);
        for _ in 0..2 {
            let mut log = LogFile::open(&path).unwrap();
            (0..15).for_each(|_| log.write(&line));
        }
        let len = |path: &Path| std::fs::metadata(path).unwrap().len();
        let before = dir.path().join("log.1");
        assert!(len(&path) <= MOST + (2 << 20) && (MOST..=MOST + (2 << 20)).contains(&len(&before)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
