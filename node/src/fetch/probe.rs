//! Ways in for tests that feed hostile bytes to what is private here. Not for programs.

use super::{http, pypi};

/// The URLs of the files that a page of a Python index names, read as JSON and as HTML.
pub fn index_page(bytes: &[u8]) -> Vec<String> {
    let Ok(base) = http::parse("https://user:secret@example.org/simple/a/") else { return Vec::new() };
    let mut files = pypi::json_page(bytes, &base).unwrap_or_default();
    if let Ok(text) = std::str::from_utf8(bytes) {
        files.extend(pypi::html_page(text, &base));
    }
    files.into_iter().map(|file| file.url.into()).collect()
}
