//! Where a fetched file may be had (SPEC §5.3): a URL, or a package in its ecosystem's registry.
//!
//! ```text
//! https://example.org/a.tar.gz              any http or https URL, without user name and fragment
//! npm:is-number@7.0.0   npm:@types/node@20.1.0
//! pypi:six@1.16.0       pypi:six@1.16.0#six-1.16.0.tar.gz
//! crate:itoa@1.0.11
//! ```
//!
//! A package location names no registry: which one is asked is for the machine that fetches to
//! say. What is downloaded is checked against the fetch's hash ([`crate::sri`]), so a location is
//! a hint, and never part of what a build is.
//!
//! Parts of a location reach command lines, URLs and file names. So each is made of few
//! characters, none begins with `-`, and a version is exact: no range and no tag.

use std::{fmt, str::FromStr};

use crate::limits;

/// Where a file may be had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// An `http://` or `https://` URL.
    Url(Word),
    /// The tarball of an npm package.
    Npm {
        /// With its scope, if it has one: `@types/node`.
        name: Word,
        /// A full semantic version.
        version: Word,
    },
    /// A file of a Python package: a wheel, or a source distribution.
    Pypi {
        /// As its author writes it; registries know its normal form too.
        name: Word,
        /// As PEP 440 has it, epoch and local part included.
        version: Word,
        /// Which file of that version; if not given, the one that has the fetch's hash.
        file: Option<Word>,
    },
    /// The `.crate` archive of a Rust package.
    Crate {
        /// The name.
        name: Word,
        /// A full semantic version.
        version: Word,
    },
}

/// A part of a [`Location`] that has been checked: only parsing makes one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(String);

/// Which rule of SPEC §5.3 a location breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// More than [`limits::LOCATION_BYTES`].
    #[error("a location has {found} bytes; at most {limit} are allowed", limit = limits::LOCATION_BYTES)]
    TooLong {
        /// Bytes given.
        found: usize,
    },
    /// Begins with nothing that is known.
    #[error("`{start}` begins with none of `https://`, `http://`, `npm:`, `pypi:` and `crate:`")]
    Kind {
        /// The beginning of what was given, escaped.
        start: String,
    },
    /// A package without `@` and a version.
    #[error("`{start}` must name an exact version: `{kind}:NAME@VERSION`")]
    NoVersion {
        /// The ecosystem.
        kind: &'static str,
        /// The beginning of what was given, escaped.
        start: String,
    },
    /// A part of the location is not what it must be.
    #[error("{part} `{start}` of the location must be {rule}")]
    Part {
        /// Name, version, file, host, …
        part: &'static str,
        /// The beginning of that part, escaped.
        start: String,
        /// What is allowed.
        rule: &'static str,
    },
}

impl FromStr for Location {
    type Err = LocationError;

    /// Reads a location of at most [`limits::LOCATION_BYTES`].
    ///
    /// # Errors
    ///
    /// [`LocationError`], the first rule that it breaks. Hostile input is expected here.
    ///
    /// # Source
    ///
    /// SPEC §5.3. URLs are those of RFC 3986 with a host, percent-encoded. Names follow npm's
    /// `validate-npm-package-name`, PEP 508 and cargo, less what begins with a mark.
    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.len() > limits::LOCATION_BYTES {
            return Err(LocationError::TooLong { found: text.len() });
        }
        if let Some(rest) = ["https://", "http://"].into_iter().find_map(|s| text.strip_prefix(s)) {
            check_url(rest)?;
            return Ok(Self::Url(Word(text.to_owned())));
        }
        match text.split_once(':') {
            Some(("npm", package)) => {
                let (name, version) = split("npm", package)?;
                Ok(Self::Npm { name: npm_name(name)?, version: semantic(version)? })
            }
            Some(("pypi", package)) => {
                let (package, file) = match package.split_once('#') {
                    Some((package, file)) => (package, Some(file_name(file)?)),
                    None => (package, None),
                };
                let (name, version) = split("pypi", package)?;
                Ok(Self::Pypi { name: pypi_name(name)?, version: pep_440(version)?, file })
            }
            Some(("crate", package)) => {
                let (name, version) = split("crate", package)?;
                Ok(Self::Crate { name: crate_name(name)?, version: semantic(version)? })
            }
            _ => Err(LocationError::Kind { start: start(text) }),
        }
    }
}

impl Location {
    /// A name for the file, for people; it need not be a [`crate::name::Name`].
    pub fn suggested_name(&self) -> String {
        let text = match self {
            Self::Url(url) => {
                let path = url.0.split('?').next().unwrap_or("").splitn(4, '/').nth(3).unwrap_or("");
                path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("").to_owned()
            }
            Self::Npm { name, version } => format!("{}-{version}", name.0.trim_start_matches('@')),
            Self::Crate { name, version } | Self::Pypi { name, version, file: None } => {
                format!("{name}-{version}")
            }
            Self::Pypi { file: Some(file), .. } => file.0.clone(),
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_.+-".contains(c) { c } else { '-' };
        let text: String = text.chars().map(plain).take(limits::NAME_BYTES).collect();
        text.trim_start_matches(['.', '+', '-']).to_owned()
    }

    /// What its text form begins with, without the colon; `url` for both kinds of URL.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Npm { .. } => "npm",
            Self::Pypi { .. } => "pypi",
            Self::Crate { .. } => "crate",
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => write!(f, "{url}"),
            Self::Pypi { name, version, file: Some(file) } => write!(f, "pypi:{name}@{version}#{file}"),
            Self::Npm { name, version }
            | Self::Pypi { name, version, file: None }
            | Self::Crate { name, version } => write!(f, "{}:{name}@{version}", self.kind()),
        }
    }
}

impl Word {
    /// The text: printable ASCII, never empty, never beginning with `-`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Longest name of a package, in bytes: npm's limit, which is the largest of the three.
const PACKAGE_BYTES: usize = 214;

/// Longest version, in bytes: npm's limit.
const VERSION_BYTES: usize = 256;

/// The beginning of a text that was refused, fit for a terminal.
fn start(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

/// Makes a word of `text` if it is `good`.
fn word(part: &'static str, text: &str, good: bool, rule: &'static str) -> Result<Word, LocationError> {
    if good { Ok(Word(text.to_owned())) } else { Err(LocationError::Part { part, start: start(text), rule }) }
}

/// Name and version; the `@` of a scope is not the one between them.
fn split<'a>(kind: &'static str, package: &'a str) -> Result<(&'a str, &'a str), LocationError> {
    match package.rsplit_once('@') {
        Some((name, version)) if !name.is_empty() => Ok((name, version)),
        _ => Err(LocationError::NoVersion { kind, start: start(package) }),
    }
}

/// 1 to `longest` letters, digits and `marks`, the first of them a letter, a digit or `_`.
fn plain(text: &str, marks: &str, longest: usize) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    first && text.len() <= longest && text.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
}

fn npm_name(name: &str) -> Result<Word, LocationError> {
    let parts = match name.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').map(|(scope, name)| [scope, name]),
        None => Some([name, name]),
    };
    let good = name.len() <= PACKAGE_BYTES
        && parts.is_some_and(|parts| parts.iter().all(|p| plain(p, "._~-", PACKAGE_BYTES)));
    word("name", name, good, "`name` or `@scope/name`, of letters, digits and `._~-`, beginning with no mark")
}

fn pypi_name(name: &str) -> Result<Word, LocationError> {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let good = plain(name, "._-", PACKAGE_BYTES) && ends(name.chars().next()) && ends(name.chars().last());
    word("name", name, good, "of letters, digits and `._-`, beginning and ending with a letter or a digit")
}

fn crate_name(name: &str) -> Result<Word, LocationError> {
    let good = plain(name, "_-", 64) && name.starts_with(|c: char| c.is_ascii_alphabetic());
    word("name", name, good, "1 to 64 letters, digits, `_` and `-`, beginning with a letter")
}

/// A wheel or a source distribution; the marks are those of versions and of wheel tags.
fn file_name(name: &str) -> Result<Word, LocationError> {
    let good = plain(name, "._+!-", limits::NAR_NAME_BYTES);
    word("file", name, good, "of letters, digits and `._+!-`, beginning with no mark")
}

/// `1.2.3`, `1.2.3-rc.1`, `1.2.3+build`. Fewer numbers would be a range, letters a tag.
fn semantic(version: &str) -> Result<Word, LocationError> {
    let (rest, build) = version.split_once('+').map_or((version, None), |(v, b)| (v, Some(b)));
    let (numbers, pre) = rest.split_once('-').map_or((rest, None), |(n, p)| (n, Some(p)));
    let number = |n: &str| {
        let digits = !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
        digits && (n == "0" || !n.starts_with('0'))
    };
    let label = |l: &str| {
        l.split('.').all(|i| !i.is_empty() && i.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'))
    };
    let good = version.len() <= VERSION_BYTES
        && numbers.split('.').count() == 3
        && numbers.split('.').all(number)
        && [pre, build].into_iter().flatten().all(label);
    word("version", version, good, "a full version, such as `1.2.3` or `1.2.3-rc.1`: not a range or a tag")
}

fn pep_440(version: &str) -> Result<Word, LocationError> {
    let good = version.starts_with(|c: char| c.is_ascii_digit()) && plain(version, "._+!-", VERSION_BYTES);
    word("version", version, good, "a version, such as `1.2` or `1!2.0.post1+local`, beginning with a digit")
}

/// Checks what comes after `https://`.
fn check_url(rest: &str) -> Result<(), LocationError> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = match authority.rfind(':') {
        Some(colon) if !authority.ends_with(']') && !authority.contains('@') => {
            (&authority[..colon], Some(&authority[colon + 1..]))
        }
        _ => (authority, None),
    };
    let v6 = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let good = match v6 {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.len() <= 253 && host.split('.').all(|label| plain(label, "_-", 63)),
    };
    word("host", host, good, "a host name or an address, without a user name; other alphabets in punycode")?;
    if let Some(port) = port {
        let digits = port.bytes().all(|b| b.is_ascii_digit());
        let good = digits && port.len() <= 5 && port.parse::<u16>().is_ok_and(|p| p != 0);
        word("port", port, good, "1 to 65535")?;
    }
    let escapes = |text: &str| {
        let hex = |code: &str| code.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
        text.split('%').skip(1).all(hex)
    };
    let good = path.chars().all(|c| c.is_ascii_alphanumeric() || "-._~/?:@!$&'()*+,;=%[]".contains(c));
    let rule = "printable ASCII in a URL's form, percent-encoded, without `#`";
    word("path", path, good && escapes(path), rule).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggested_names() {
        let name = |text: &str| text.parse::<Location>().unwrap().suggested_name();
        assert_eq!(name("https://example.org/a/b-1.2.tar.gz?x=1"), "b-1.2.tar.gz");
        assert_eq!(name("https://example.org/a/"), "a");
        assert_eq!(name("npm:@yowasp/clang@22.0.0"), "yowasp-clang-22.0.0");
        assert_eq!(name("pypi:a@1#a-1.whl"), "a-1.whl");
        assert_eq!(name("crate:lua-src@550.0.0"), "lua-src-550.0.0");
    }

    #[test]
    fn good_ones_round_trip() {
        for (text, kind) in [
            ("https://example.org", "url"),
            ("http://127.0.0.1:8080/a%20b?c=d&e", "url"),
            ("https://[::1]:443/x", "url"),
            ("https://xn--bcher-kva.example/a+b/c~d@1.0/-/e.tgz", "url"),
            ("https://example.org/a?redirect=http://b:c@d/", "url"),
            ("npm:is-number@7.0.0", "npm"),
            ("npm:@types/node@20.1.0-rc.1+b.2", "npm"),
            ("npm:JSONStream@1.3.5", "npm"),
            ("pypi:six@1.16.0", "pypi"),
            ("pypi:zope.interface@1!2.0.post1+cpu#zope.interface-5.0-cp39-none-any.whl", "pypi"),
            ("pypi:PyYAML@6", "pypi"),
            ("crate:itoa@1.0.11", "crate"),
            ("crate:serde_json@1.0.0-alpha-2", "crate"),
        ] {
            let location: Location = text.parse().unwrap();
            assert_eq!((location.to_string().as_str(), location.kind()), (text, kind));
        }
    }

    #[test]
    fn kinds() {
        for text in ["", "file:///etc/passwd", "HTTPS://a", "ftp://a", "npm", " npm:a@1.0.0", "gem:a@1.0.0"] {
            assert!(matches!(parse(text), LocationError::Kind { .. }), "{text:?}");
        }
        let long = format!("https://a/{}", "b".repeat(limits::LOCATION_BYTES));
        assert_eq!(parse(&long), LocationError::TooLong { found: limits::LOCATION_BYTES + 10 });
    }

    #[test]
    fn versions_are_exact() {
        for text in ["npm:a", "npm:@a/b", "pypi:six", "crate:itoa", "npm:@1.0.0"] {
            assert!(matches!(parse(text), LocationError::NoVersion { .. }), "{text:?}");
        }
        for version in [
            "",
            "1",
            "1.2",
            "latest",
            "^1.0.0",
            "1.x.0",
            "01.0.0",
            "1.0.0-",
            "1.0.0+",
            "1.0.0 ",
            "1.0.0-a..b",
        ] {
            broken("version", &format!("npm:a@{version}"));
            broken("version", &format!("crate:a@{version}"));
        }
        for version in ["", "-1", "1.*", "==1", "v1", "1 ", "1;b", "1\n"] {
            broken("version", &format!("pypi:a@{version}"));
        }
    }

    #[test]
    fn names_are_harmless() {
        for name in
            ["-g", "--help", ".a", "../a", "a/b", "@a", "@a/", "@/a", "@a/b/c", "@-a/b", "@a/-b", "a b", "é"]
        {
            broken("name", &format!("npm:{name}@1.0.0"));
        }
        for name in ["-r", "a-", ".a", "_a", "a/b", "a[b]", "a@b"] {
            broken("name", &format!("pypi:{name}@1.0"));
        }
        for name in ["-q", "1a", "_a", "a.b", "a/b", "a\"b"] {
            broken("name", &format!("crate:{name}@1.0.0"));
        }
        for file in ["", "-a", ".a", "a/b", "a\\b", "a b", "a#b"] {
            broken("file", &format!("pypi:a@1.0#{file}"));
        }
    }

    #[test]
    fn urls_are_harmless() {
        for url in [
            "https://",
            "https:///a",
            "http://u@h/",
            "http://u:p@h/",
            "http://-h",
            "http://h..i",
            "http://[a]",
        ] {
            broken("host", url);
        }
        for url in ["http://h:", "http://h:0", "http://h:65536", "http://h:+80", "http://[::1]:x"] {
            broken("port", url);
        }
        for url in [
            "http://h/a b",
            "http://h/\r\nX: y",
            "http://h/\\",
            "http://h/#a",
            "http://h/%",
            "http://h/%2g/ü",
        ] {
            broken("path", url);
        }
    }

    #[test]
    fn what_is_refused_is_quoted_harmlessly() {
        let text = parse("npm:\u{1b}[2J\u{202e}@1.0.0").to_string();
        assert!(text.contains("\\u{1b}[2J\\u{202e}"), "{text}");
    }

    fn parse(text: &str) -> LocationError {
        text.parse::<Location>().unwrap_err()
    }

    #[track_caller]
    fn broken(expected: &str, text: &str) {
        match parse(text) {
            LocationError::Part { part, .. } => assert_eq!(part, expected, "{text:?}"),
            other => panic!("{text:?}: {other}"),
        }
    }

    proptest::proptest! {
        /// SPEC §5.3: what was read is written the same, and any text is either read or refused.
        #[test]
        fn reading_is_total(text in "(https?://|npm:|pypi:|crate:)?[a-z0-9@:/.#%+!\\[\\] -]{0,24}") {
            if let Ok(location) = text.parse::<Location>() {
                proptest::prop_assert_eq!(location.to_string(), text);
            }
        }
    }
}
