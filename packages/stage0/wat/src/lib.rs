//! `wat IN.wat OUT.wasm`: WebAssembly text to binary, and with `--print` back to text.
//!
//! The binary has a `name` section if the text has names, and no other custom sections than those
//! that the text asks for.
//!
//! Absent on purpose: components, which no build may run, and validation, which whoever runs the
//! module does anyway.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use stage0::command::Failure;
use stage0::tree::{self, TreeError};
use wast::Wat;
use wast::parser::{self, ParseBuffer};

const USAGE: &str = "wat IN.wat OUT.wasm\n       wat --print IN.wasm OUT.wat";

/// Why a module was not translated.
#[derive(Debug)]
pub enum AssemblyError {
    /// A file could not be used.
    Tree(TreeError),

    /// The text is not UTF-8.
    NotUtf8(PathBuf),

    /// The text is not a module.
    Text {
        /// The file with the text.
        file: PathBuf,
        /// Where it goes wrong.
        error: TextError,
    },

    /// The binary is not a module.
    Binary {
        /// The file with the binary.
        file: PathBuf,
        /// What is wrong, with the offset in bytes.
        message: String,
    },
}

/// Text that is not a WebAssembly module.
#[derive(Debug, PartialEq, Eq)]
pub struct TextError {
    /// The line, counted from 1.
    pub line: usize,
    /// The column, in bytes, counted from 1.
    pub column: usize,
    /// What is wrong there.
    pub message: String,
}

impl From<TreeError> for AssemblyError {
    fn from(error: TreeError) -> Self {
        Self::Tree(error)
    }
}

impl fmt::Display for AssemblyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tree(error) => error.fmt(f),
            Self::NotUtf8(file) => write!(f, "{}: not UTF-8", file.display()),
            Self::Text { file, error } => write!(f, "{}:{error}", file.display()),
            Self::Binary { file, message } => write!(f, "{}: {message}", file.display()),
        }
    }
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl Error for AssemblyError {}

/// Translates what the command line asks for.
///
/// # Errors
///
/// [`Failure::Usage`] if it makes no sense, or [`Failure::Failed`] with what an
/// [`AssemblyError`] says.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--print", from, to] => Ok(print_file(Path::new(from), Path::new(to))?),
        [from, to] if !from.starts_with("--") => Ok(assemble_file(Path::new(from), Path::new(to))?),
        _ => Err(Failure::Usage(USAGE)),
    }
}

/// The binary of the module in `text`.
///
/// # Errors
///
/// [`TextError`] says where `text` goes wrong.
///
/// # Example
///
/// ```
/// assert_eq!(assembler::assemble("(module)").unwrap(), b"\0asm\x01\0\0\0");
/// assert_eq!(assembler::assemble("(module").unwrap_err().column, 8);
/// ```
pub fn assemble(text: &str) -> Result<Vec<u8>, TextError> {
    let located = |error: wast::Error| {
        let (line, column) = error.span().linecol_in(text);
        TextError {
            line: line + 1,
            column: column + 1,
            message: error.message(),
        }
    };
    let buffer = ParseBuffer::new(text).map_err(located)?;
    let mut module: Wat<'_> = parser::parse(&buffer).map_err(located)?;
    module.encode().map_err(located)
}

fn assemble_file(from: &Path, to: &Path) -> Result<(), AssemblyError> {
    let text = fs::read(from).map_err(TreeError::at(from))?;
    let text = String::from_utf8(text).map_err(|_| AssemblyError::NotUtf8(from.to_owned()))?;
    let binary = assemble(&text).map_err(|error| AssemblyError::Text {
        file: from.to_owned(),
        error,
    })?;
    write(to, &binary)
}

fn print_file(from: &Path, to: &Path) -> Result<(), AssemblyError> {
    let binary = fs::read(from).map_err(TreeError::at(from))?;
    let text = wasmprinter::print_bytes(binary).map_err(|error| AssemblyError::Binary {
        file: from.to_owned(),
        message: format!("{error:#}"),
    })?;
    write(to, text.as_bytes())
}

fn write(to: &Path, content: &[u8]) -> Result<(), AssemblyError> {
    tree::make_parent(to)?;
    Ok(fs::write(to, content).map_err(TreeError::at(to))?)
}
