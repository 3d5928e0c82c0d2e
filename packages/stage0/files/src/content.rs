//! What is in files: putting them together, writing them, replacing text, comparing them.

use std::error::Error;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use stage0::tree::{self, BUFFER_BYTES, TreeError};

use crate::place::is_same;

mod field;

pub use field::{JsonError, JsonFault};

/// What standard input is called in messages.
const STDIN: &str = "stdin";

/// Why the content of a file is not what was asked for.
#[derive(Debug)]
pub enum ContentError {
    /// A file could not be used.
    Tree(TreeError),

    /// The file to write to is one of those to read from.
    WritesToItself(PathBuf),

    /// Standard input is not a JSON object, or the field is not text.
    Json(JsonError),

    /// The JSON object has no such field.
    NoField(String),

    /// The text to replace does not occur.
    Absent {
        /// The file that was searched.
        file: PathBuf,
        /// The text that is not in it.
        text: String,
    },

    /// Two files differ.
    Differ {
        /// The first file.
        a: PathBuf,
        /// The second file.
        b: PathBuf,
        /// The offset, in bytes, of the first difference.
        offset: u64,
        /// What the files have there, or nothing if they have ended.
        bytes: [Option<u8>; 2],
    },
}

impl From<TreeError> for ContentError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl fmt::Display for ContentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::WritesToItself(path) => {
                write!(f, "{}: is both read and written", path.display())
            }
            Self::Json(error) => write!(f, "stdin: {error}"),
            Self::NoField(key) => write!(f, "stdin: no field `{key}`"),
            Self::Absent { file, text } => {
                write!(f, "{}: `{text}` does not occur", file.display())
            }
            Self::Differ {
                a,
                b,
                offset,
                bytes,
            } => {
                let (a, b) = (a.display(), b.display());
                write!(f, "{a} and {b} differ at byte {offset}: ")?;
                match bytes {
                    [Some(x), Some(y)] => write!(f, "{x:#04x} and {y:#04x}"),
                    [None, _] => write!(f, "{a} has ended"),
                    [_, None] => write!(f, "{b} has ended"),
                }
            }
        }
    }
}

impl Error for ContentError {}

/// Writes the contents of the files `from`, one after the other, to the file `to`.
///
/// # Errors
///
/// If a file can't be used, or `to` is one of `from`.
pub fn concat(to: &Path, from: &[&str]) -> Result<(), ContentError> {
    if from.iter().any(|from| is_same(Path::new(from), to)) {
        return Err(ContentError::WritesToItself(to.to_owned()));
    }
    tree::make_parent(to)?;
    let mut writer = File::create(to).map_err(TreeError::at(to))?;
    for from in from.iter().map(Path::new) {
        let mut reader = File::open(from).map_err(TreeError::at(from))?;
        tree::append(&mut reader, from, &mut writer, to)?;
    }
    Ok(())
}

/// Writes all of `input` to the file `to`.
///
/// # Errors
///
/// If either can't be used.
pub fn write(input: &mut dyn Read, to: &Path) -> Result<(), ContentError> {
    tree::make_parent(to)?;
    let mut writer = File::create(to).map_err(TreeError::at(to))?;
    Ok(tree::append(input, Path::new(STDIN), &mut writer, to)?)
}

/// Writes a field of the JSON object in `input` to the file `to`: a string as it is, an array of
/// strings as lines, each ended by `\n`.
///
/// # Errors
///
/// If `input` is not a JSON object, has the field not at all or twice, or the field is not text;
/// then nothing is written.
pub fn write_field(input: &mut dyn Read, key: &str, to: &Path) -> Result<(), ContentError> {
    let mut document = Vec::new();
    let read = input.read_to_end(&mut document);
    read.map_err(TreeError::at(Path::new(STDIN)))?;
    let text = field::text(&document, key)
        .map_err(ContentError::Json)?
        .ok_or_else(|| ContentError::NoField(key.to_owned()))?;
    write(&mut text.as_bytes(), to)
}

/// Writes the file `from` to the file `to`, which may be the same, with each old text replaced by
/// its new one wherever it occurs: one replacement after the other, each in what the one before
/// has left.
///
/// # Errors
///
/// [`ContentError::Absent`] if an old text does not occur when its turn comes; then nothing is
/// written. An empty old text never occurs.
pub fn substitute(
    from: &Path,
    to: &Path,
    replacements: &[(&str, &str)],
) -> Result<(), ContentError> {
    let mut content = fs::read(from).map_err(TreeError::at(from))?;
    for (old, new) in replacements {
        content = replace(&content, old.as_bytes(), new.as_bytes()).ok_or_else(|| {
            ContentError::Absent {
                file: from.to_owned(),
                text: (*old).to_owned(),
            }
        })?;
    }
    write(&mut content.as_slice(), to)
}

/// Whether the files `a` and `b` have the same bytes.
///
/// # Errors
///
/// [`ContentError::Differ`] if they do not, or what keeps them from being read.
pub fn test_equal(a: &Path, b: &Path) -> Result<(), ContentError> {
    let mut bytes_a = bytes(a)?;
    let mut bytes_b = bytes(b)?;
    for offset in 0.. {
        let x = bytes_a.next().transpose().map_err(TreeError::at(a))?;
        let y = bytes_b.next().transpose().map_err(TreeError::at(b))?;
        if x != y {
            return Err(ContentError::Differ {
                a: a.to_owned(),
                b: b.to_owned(),
                offset,
                bytes: [x, y],
            });
        }
        if x.is_none() {
            break;
        }
    }
    Ok(())
}

fn bytes(path: &Path) -> Result<io::Bytes<BufReader<File>>, TreeError> {
    if path.is_dir() {
        return Err(TreeError::at(path)(ErrorKind::IsADirectory.into()));
    }
    let file = File::open(path).map_err(TreeError::at(path))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file).bytes())
}

/// `content` with every `old` replaced by `new`, or nothing if there is none.
fn replace(content: &[u8], old: &[u8], new: &[u8]) -> Option<Vec<u8>> {
    let mut replaced = Vec::with_capacity(content.len());
    let mut rest = content;
    while let Some(at) = find(rest, old) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(new);
        rest = &rest[at + old.len()..];
    }
    if rest.len() == content.len() {
        return None;
    }
    replaced.extend_from_slice(rest);
    Some(replaced)
}

/// Where `text` first occurs in `content`.
fn find(content: &[u8], text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    let mut from = 0;
    while let Some(found) = content[from..].iter().position(|byte| *byte == first) {
        let at = from + found;
        if content[at..].starts_with(text) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_replaced_wherever_it_occurs() {
        let replace = |content: &str, old: &str, new: &str| {
            replace(content.as_bytes(), old.as_bytes(), new.as_bytes())
                .map(|bytes| String::from_utf8(bytes).unwrap())
        };
        assert_eq!(replace("@a@ @a@", "@a@", "x").as_deref(), Some("x x"));
        assert_eq!(replace("aaa", "aa", "b").as_deref(), Some("ba"));
        assert_eq!(replace("ab", "ab", "").as_deref(), Some(""));
        assert_eq!(replace("ab", "a", "aa").as_deref(), Some("aab")); // Not again in the new text.
        assert_eq!(replace("ab", "c", "d"), None);
        assert_eq!(replace("ab", "", "d"), None);
    }

    proptest! {
        /// The standard library agrees, on text.
        #[test]
        fn agrees_with_std(content in "[ab]{0,20}", old in "[ab]{1,3}", new in "[ab]{0,3}") {
            let replaced = replace(content.as_bytes(), old.as_bytes(), new.as_bytes());
            let expected = content.contains(&old).then(|| content.replace(&old, &new).into_bytes());
            prop_assert_eq!(replaced, expected);
        }
    }
}
