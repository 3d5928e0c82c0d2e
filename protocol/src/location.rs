//! Where a file can be fetched from (SPEC §5.3).
//!
//! ```text
//! location = url / "npm:" npm-name "@" semver / "pypi:" name "@" version [ "#" file ]
//!          / "crate:" name "@" semver
//! url      = ( "http://" / "https://" ) host [ ":" port ] [ "/" path ] [ "?" query ]
//! ```
//!
//! The names of registries are part of the format and not the URLs they stand for, so that a mirror
//! needs no change of any derivation. A location has one spelling; what a fetcher would have to
//! guess about is refused: user names, fragments, spaces, control characters, other schemes.

use std::{fmt, str::FromStr};

use crate::limits;

/// Where a file can be fetched from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Location {
    /// `https://…` or `http://…`.
    Url(String),
    /// `npm:NAME@VERSION`: the tarball of a package of npm.
    Npm {
        /// `name` or `@scope/name`.
        name: String,
        /// As in semantic versioning.
        version: String,
    },
    /// `pypi:NAME@VERSION` or `pypi:NAME@VERSION#FILE`: a distribution of a project of PyPI.
    Pypi {
        /// The project.
        name: String,
        /// As in PEP 440.
        version: String,
        /// Which of its files; the source distribution if not given.
        file: Option<String>,
    },
    /// `crate:NAME@VERSION`: a package of crates.io.
    Crate {
        /// The crate.
        name: String,
        /// As in semantic versioning.
        version: String,
    },
}

/// Why a text is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Longer than [`limits::LOCATION_BYTES`].
    #[error("a location of {0} bytes; at most {max} are allowed", max = limits::LOCATION_BYTES)]
    TooLong(usize),
    /// Another scheme, or none.
    #[error("expected `https://`, `http://`, `npm:`, `pypi:` or `crate:`, found `{found}`")]
    Scheme {
        /// The beginning of what was given.
        found: String,
    },
    /// A character that URLs do not have, or one that this format leaves out of them.
    #[error("the URL has the character {0:?}")]
    UrlCharacter(char),
    /// No host, or none that is plain: letters, digits, dots and dashes, or `[…]`, and a port.
    #[error("the URL has no plain host: `{0}`")]
    Host(String),
    /// No `@` between name and version.
    #[error("expected NAME@VERSION, found `{0}`")]
    NoVersion(String),
    /// A name that the registry would refuse.
    #[error("`{name}` is not a name of {registry}")]
    Name {
        /// Which registry.
        registry: &'static str,
        /// The name.
        name: String,
    },
    /// A version that the registry would refuse.
    #[error("`{version}` is not a version of {registry}")]
    Version {
        /// Which registry.
        registry: &'static str,
        /// The version.
        version: String,
    },
    /// Not the plain name of a file.
    #[error("`{0}` is not the name of a file")]
    File(String),
}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if text.len() > limits::LOCATION_BYTES {
            return Err(LocationError::TooLong(text.len()));
        }
        if let Some(package) = text.strip_prefix("npm:") {
            let (name, version) = package_of("npm", package, npm_name, semver)?;
            return Ok(Self::Npm { name, version });
        }
        if let Some(package) = text.strip_prefix("crate:") {
            let (name, version) = package_of("crates.io", package, crate_name, semver)?;
            return Ok(Self::Crate { name, version });
        }
        if let Some(package) = text.strip_prefix("pypi:") {
            let (package, file) = match package.split_once('#') {
                Some((package, file)) => (package, Some(file)),
                None => (package, None),
            };
            let (name, version) = package_of("PyPI", package, pypi_name, pypi_version)?;
            return match file {
                Some(file) if !file_name(file) => Err(LocationError::File(file.to_owned())),
                file => Ok(Self::Pypi { name, version, file: file.map(str::to_owned) }),
            };
        }
        check_url(text)?;
        Ok(Self::Url(text.to_owned()))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => f.write_str(url),
            Self::Npm { name, version } => write!(f, "npm:{name}@{version}"),
            Self::Crate { name, version } => write!(f, "crate:{name}@{version}"),
            Self::Pypi { name, version, file: None } => write!(f, "pypi:{name}@{version}"),
            Self::Pypi { name, version, file: Some(file) } => write!(f, "pypi:{name}@{version}#{file}"),
        }
    }
}

impl Location {
    /// A name for the file, for people; it need not be a [`crate::name::Name`].
    pub fn suggested_name(&self) -> String {
        let text = match self {
            Self::Url(url) => {
                let end = url.find('?').unwrap_or(url.len());
                let path = url[..end].splitn(4, '/').nth(3).unwrap_or("");
                path.rsplit('/').find(|part| !part.is_empty()).unwrap_or("").to_owned()
            }
            Self::Npm { name, version } => format!("{}-{version}", name.trim_start_matches('@')),
            Self::Crate { name, version } | Self::Pypi { name, version, file: None } => {
                format!("{name}-{version}")
            }
            Self::Pypi { file: Some(file), .. } => file.clone(),
        };
        let plain = |c: char| if c.is_ascii_alphanumeric() || "_.+-".contains(c) { c } else { '-' };
        let text: String = text.chars().map(plain).take(limits::NAME_BYTES).collect();
        text.trim_start_matches(['.', '+', '-']).to_owned()
    }
}

/// Splits NAME@VERSION at the last `@` and checks both.
fn package_of(
    registry: &'static str,
    text: &str,
    is_name: fn(&str) -> bool,
    is_version: fn(&str) -> bool,
) -> Result<(String, String), LocationError> {
    let (name, version) = match text.rsplit_once('@') {
        Some((name, version)) if !name.is_empty() => (name.to_owned(), version.to_owned()),
        _ => return Err(LocationError::NoVersion(text.to_owned())),
    };
    if !is_name(&name) {
        return Err(LocationError::Name { registry, name });
    }
    if !is_version(&version) {
        return Err(LocationError::Version { registry, version });
    }
    Ok((name, version))
}

/// Whether `text` has 1 to `limit` characters that are letters, digits or among `more`, the first a
/// letter or a digit.
fn word(text: &str, limit: usize, more: &str) -> bool {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    first && text.len() <= limit && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn npm_name(name: &str) -> bool {
    let part = |part: &str| word(part, 214, "-._~");
    match name.strip_prefix('@') {
        Some(scoped) => match scoped.split_once('/') {
            Some((scope, name)) => part(scope) && part(name),
            None => false,
        },
        None => part(name),
    }
}

fn crate_name(name: &str) -> bool {
    word(name, 64, "-_") && name.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn pypi_name(name: &str) -> bool {
    word(name, 200, "-._") && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn pypi_version(version: &str) -> bool {
    word(version, 200, ".!+-_") && version.starts_with(|c: char| c.is_ascii_digit())
}

/// MAJOR.MINOR.PATCH, then perhaps `-` and `+` with identifiers separated by dots.
fn semver(version: &str) -> bool {
    let (version, build) = version.split_once('+').map_or((version, None), |(v, b)| (v, Some(b)));
    let (core, pre) = version.split_once('-').map_or((version, None), |(v, p)| (v, Some(p)));
    let number = |n: &str| {
        !n.is_empty()
            && n.len() <= 20
            && n.bytes().all(|b| b.is_ascii_digit())
            && (n == "0" || !n.starts_with('0'))
    };
    let identifiers = |text: &str| {
        let ok = |id: &str| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        text.len() <= 200 && text.split('.').all(ok)
    };
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(identifiers)
        && build.is_none_or(identifiers)
}

fn file_name(file: &str) -> bool {
    word(file, limits::NAR_NAME_BYTES, "._+-!")
}

fn check_url(url: &str) -> Result<(), LocationError> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let rest = rest.ok_or_else(|| LocationError::Scheme { found: url.chars().take(16).collect() })?;
    // RFC 3986 without the fragment.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~:/?[]@!$&'()*+,;=%".contains(c);
    if let Some(bad) = url.chars().find(|c| !allowed(*c)) {
        return Err(LocationError::UrlCharacter(bad));
    }
    let host = &rest[..rest.find(['/', '?']).unwrap_or(rest.len())];
    if plain_host(host) { Ok(()) } else { Err(LocationError::Host(host.to_owned())) }
}

/// A host and perhaps a port; no user name, which would be a secret in a public place.
fn plain_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(six) => match six.split_once(']') {
            Some((address, port)) => {
                let hex = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
                if address.is_empty() || !address.chars().all(hex) {
                    return false;
                }
                ("v6", port)
            }
            None => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0));
    port && word(name, 253, "-.") && !name.contains("..")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good() {
        for text in [
            "https://example.org",
            "https://example.org/a/b-1.2.tar.gz?x=1&y=%20",
            "http://127.0.0.1:8080/a",
            "https://[::1]:443/a",
            "npm:@yowasp/clang@22.0.0-git20542-10",
            "npm:JSONStream@1.3.5",
            "pypi:wasmtime@50.0.1",
            "pypi:name@1!2.0.post1+local#name-2.0-py3-none-any.whl",
            "crate:lua-src@550.0.0",
            "crate:libz-sys@1.1.0+1.3.1",
        ] {
            assert_eq!(text.parse::<Location>().unwrap().to_string(), text);
        }
    }

    #[track_caller]
    fn refused(texts: &[&str], is: fn(&LocationError) -> bool) {
        for text in texts {
            let error = text.parse::<Location>().unwrap_err();
            assert!(is(&error), "{text}: {error}");
        }
    }

    #[test]
    fn bad() {
        refused(&["", "ftp://a/b", "file:///etc/passwd", "HTTPS://a", "npm", "-x"], |e| {
            matches!(e, LocationError::Scheme { .. })
        });
        refused(&["https://a/b c", "https://a/\n", "https://a/b#c", "https://a/\\", "https://ä/"], |e| {
            matches!(e, LocationError::UrlCharacter(_))
        });
        refused(
            &[
                "https://",
                "https:///a",
                "https://?a",
                "https://u:p@a/",
                "https://-a/",
                "https://a:/",
                "https://a:0/",
                "https://a:99999/",
                "https://a..b/",
                "https://[]/",
                "https://[::1/",
                "https://a:+1/",
            ],
            |e| matches!(e, LocationError::Host(_)),
        );
        refused(&["npm:a", "npm:@a/b", "pypi:a#b", "crate:@1.0.0", "crate:"], |e| {
            matches!(e, LocationError::NoVersion(_))
        });
        refused(
            &[
                "npm:-a@1.0.0",
                "npm:../a@1.0.0",
                "npm:@a/../b@1.0.0",
                "npm:@/b@1.0.0",
                "npm:a/b@1.0.0",
                "npm:.a@1.0.0",
                "pypi:-a@1",
                "pypi:a-@1",
                "crate:1a@1.0.0",
                "crate:a.b@1.0.0",
                "crate:a b@1.0.0",
            ],
            |e| matches!(e, LocationError::Name { .. }),
        );
        refused(
            &[
                "npm:a@1",
                "npm:a@latest",
                "npm:a@^1.0.0",
                "npm:a@01.0.0",
                "npm:a@1.0.0-",
                "crate:a@1.0",
                "crate:a@1.0.0+",
                "pypi:a@",
                "pypi:a@latest",
                "pypi:a@1 0",
                "crate:a@1.0.0/..",
            ],
            |e| matches!(e, LocationError::Version { .. }),
        );
        refused(&["pypi:a@1#", "pypi:a@1#../b", "pypi:a@1#-b", "pypi:a@1#b c"], |e| {
            matches!(e, LocationError::File(_))
        });
        let long = format!("https://a/{}", "x".repeat(limits::LOCATION_BYTES));
        refused(&[&long], |e| matches!(e, LocationError::TooLong(_)));
    }

    #[test]
    fn names() {
        let name = |text: &str| text.parse::<Location>().unwrap().suggested_name();
        assert_eq!(name("https://example.org/a/b-1.2.tar.gz?x=1"), "b-1.2.tar.gz");
        assert_eq!(name("https://example.org/a/"), "a");
        assert_eq!(name("https://example.org"), "");
        assert_eq!(name("npm:@yowasp/clang@22.0.0"), "yowasp-clang-22.0.0");
        assert_eq!(name("pypi:a@1#a-1.whl"), "a-1.whl");
        assert_eq!(name("crate:lua-src@550.0.0"), "lua-src-550.0.0");
    }

    proptest! {
        /// What is accepted has one spelling and nothing that a shell, a header or a path minds.
        #[test]
        fn one_spelling(text in "(https?://|npm:|pypi:|crate:)?[ -~\\n@a-c1.:/#-]{0,24}") {
            if let Ok(location) = text.parse::<Location>() {
                prop_assert_eq!(location.to_string(), text.clone());
                prop_assert!(!text.contains(|c: char| c.is_whitespace() || c.is_control()));
            }
        }
    }
}
