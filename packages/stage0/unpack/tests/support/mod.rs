//! Archives made by hand, and what comes out of them.

#![allow(dead_code, reason = "each test uses some of it")]

use std::fs;
use std::path::Path;

use stage0::glob::Selection;
use stage0::path::Relative;
use stage0::tree::{self, Kind};
use tempfile::TempDir;
use unpack::destination::Choice;

/// A directory with an archive called `name`, and a directory `out` that it is unpacked to.
pub(crate) struct Bench {
    dir: TempDir,
    name: String,
}

impl Bench {
    pub(crate) fn new(name: &str, archive: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name), archive).unwrap();
        let name = name.to_owned();
        Self { dir, name }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Unpacks it; what comes out, as [`list`] tells it, or the message without the archive's path.
    pub(crate) fn unpack(&self, choice: &Choice) -> Result<Vec<String>, String> {
        let archive = self.root().join(&self.name);
        let out = self.root().join("out");
        let result = unpack::unpack(&archive, &out, choice);
        let outside: Vec<_> = list(self.root())
            .into_iter()
            .filter(|line| !line.starts_with("out/") && !line.starts_with(&self.name))
            .filter(|line| !line.starts_with("before"))
            .collect();
        assert_eq!(outside, Vec::<String>::new(), "written outside");
        match result {
            Ok(()) => Ok(list(&out)),
            Err(error) => {
                let message = error.to_string();
                let start = format!("{}: ", archive.display());
                Err(message.strip_prefix(&start).unwrap().to_owned())
            }
        }
    }
}

/// All that is below `root`: `file=content`, `directory/` or `link->target`. Content that is long
/// or no text is told by its length.
pub(crate) fn list(root: &Path) -> Vec<String> {
    let entries = tree::walk(root).unwrap().into_iter();
    entries
        .map(|entry| {
            let path = &entry.path;
            match entry.kind {
                Kind::Directory => format!("{path}/"),
                Kind::Symlink(target) => format!("{path}->{}", target.display()),
                Kind::File => {
                    let content = fs::read(path.on(root)).unwrap();
                    match str::from_utf8(&content) {
                        Ok(text) if text.len() < 100 => format!("{path}={}", text.trim_end()),
                        _ => format!("{path}: {} bytes", content.len()),
                    }
                }
            }
        })
        .collect()
}

#[track_caller]
pub(crate) fn unpacks(archive: &[u8], expected: &str) {
    let out = Bench::new("archive", archive).unpack(&Choice::default());
    assert_eq!(out.map(|lines| lines.join(" ")), Ok(expected.to_owned()));
}

#[track_caller]
pub(crate) fn refuses(archive: &[u8], message: &str) {
    let out = Bench::new("archive", archive).unpack(&Choice::default());
    assert_eq!(out, Err(message.to_owned()));
}

/// A choice in the words of the command line: `strip=N`, `only=GLOB`, `FROM=>TO`.
pub(crate) fn choice(words: &str) -> Choice {
    let mut choice = Choice::default();
    let mut only = Vec::new();
    for word in words.split_whitespace() {
        if let Some((from, to)) = word.split_once("=>") {
            let path = |name: &str| Relative::parse(name.as_bytes()).unwrap();
            choice.rename.push((path(from), path(to)));
        } else if let Some(count) = word.strip_prefix("strip=") {
            choice.strip = count.parse().unwrap();
        } else {
            only.push(word.strip_prefix("only=").unwrap());
        }
    }
    choice.only = Selection::new(only);
    choice
}

/// An entry of a tar archive: its header and, filled up, its content.
pub(crate) fn entry(name: &[u8], kind: u8, link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[156] = kind;
    header[157..157 + link.len()].copy_from_slice(link);
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut header);
    let mut entry = header.to_vec();
    entry.extend(content);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

/// Puts the right checksum into a header of tar.
pub(crate) fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub(crate) fn file(name: &str, content: &str) -> Vec<u8> {
    entry(name.as_bytes(), b'0', b"", content.as_bytes())
}

pub(crate) fn symlink(name: &str, target: &str) -> Vec<u8> {
    entry(name.as_bytes(), b'2', target.as_bytes(), b"")
}

pub(crate) fn hard_link(name: &str, target: &str) -> Vec<u8> {
    entry(name.as_bytes(), b'1', target.as_bytes(), b"")
}

pub(crate) fn directory(name: &str) -> Vec<u8> {
    entry(name.as_bytes(), b'5', b"", b"")
}

/// A header of pax with these records, each given without its length.
pub(crate) fn pax(kind: u8, records: &[&str]) -> Vec<u8> {
    let mut content = String::new();
    for record in records {
        let rest = format!(" {record}\n");
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        content += &format!("{length}{rest}");
    }
    entry(b"pax", kind, b"", content.as_bytes())
}

/// A tar archive of these entries.
pub(crate) fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = entries.concat();
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// A stored file of a zip archive.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    pub(crate) crc: Option<u32>,
    pub(crate) size: Option<u32>,
    /// The name in the local header.
    pub(crate) local_name: Option<String>,
    /// Whose local header to name, instead of its own.
    pub(crate) offset: Option<u32>,
}

pub(crate) fn stored(name: &str, content: &str) -> Stored {
    Stored {
        name: name.to_owned(),
        content: content.into(),
        mode: 0o100_644,
        method: 0,
        flags: 0,
        crc: None,
        size: None,
        local_name: None,
        offset: None,
    }
}

/// A zip archive of these files.
pub(crate) fn zip(files: &[Stored]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut central = Vec::new();
    for file in files {
        let mut crc = flate2::Crc::new();
        crc.update(&file.content);
        let crc = file.crc.unwrap_or(crc.sum());
        let packed = file.content.len() as u32;
        let size = file.size.unwrap_or(packed);
        let offset = file.offset.unwrap_or(archive.len() as u32);
        let common = |name: &str| {
            let mut fields = Vec::new();
            for number in [20, file.flags, file.method, 0, 0] {
                fields.extend(number.to_le_bytes());
            }
            for number in [crc, packed, size] {
                fields.extend(number.to_le_bytes());
            }
            fields.extend((name.len() as u16).to_le_bytes());
            fields.extend([0, 0]);
            fields
        };
        let local_name = file.local_name.as_ref().unwrap_or(&file.name);
        archive.extend(b"PK\x03\x04");
        archive.extend(common(local_name));
        archive.extend(local_name.as_bytes());
        archive.extend(&file.content);
        central.extend(b"PK\x01\x02\x14\x03");
        central.extend(common(&file.name));
        central.extend([0; 6]);
        central.extend((file.mode << 16).to_le_bytes());
        central.extend(offset.to_le_bytes());
        central.extend(file.name.as_bytes());
    }
    let count = files.len() as u16;
    let (size, start) = (central.len() as u32, archive.len() as u32);
    archive.extend(central);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend(count.to_le_bytes());
    archive.extend(count.to_le_bytes());
    archive.extend(size.to_le_bytes());
    archive.extend(start.to_le_bytes());
    archive.extend([0, 0]);
    archive
}

/// A member of an ar archive.
pub(crate) fn member(name: &str, content: &str) -> Vec<u8> {
    let size = content.len();
    let mut member = format!("{name:<16}0           0     0     644     {size:<10}`\n{content}");
    if size % 2 == 1 {
        member.push('\n');
    }
    member.into_bytes()
}

pub(crate) fn ar(members: &[Vec<u8>]) -> Vec<u8> {
    [b"!<arch>\n".to_vec(), members.concat()].concat()
}
