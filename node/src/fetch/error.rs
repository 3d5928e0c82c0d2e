//! Why a file could not be had, and what to do about it.
//!
//! Texts that come from servers and clients are bounded and escaped before they get here; URLs are
//! shown without user name, password and query, any of which may be a secret.

use std::{fmt, path::PathBuf, time::Duration};

use protocol::{location::LocationError, plain::is_plain, sri::Sri};

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The derivation names something that is no location (SPEC §5.3).
    #[error("the fetch names a location that is none")]
    Location(#[source] LocationError),

    /// The caller asked to stop.
    #[error("the fetch was cancelled")]
    Cancelled,

    /// Nothing here has the file, and the network may not be used.
    #[error("`{name}` is not here, and this node is offline")]
    Offline {
        /// What the derivation is called.
        name: String,
    },

    /// What came is another file (SPEC §5.3). It was removed.
    #[error("{location} gave another file: expected {expected}, found {found}")]
    Hash {
        /// The hash of the derivation.
        expected: Sri,
        /// The hash of what came.
        found: Sri,
        /// Where it came from.
        location: String,
    },

    /// Longer than this node takes.
    #[error("{location} gives {}, and this node takes at most {limit} bytes", Length(*.found))]
    TooLong {
        /// Where it came from.
        location: String,
        /// Bytes announced; `None` if they were counted until they were too many.
        found: Option<u64>,
        /// Bytes allowed.
        limit: u64,
    },

    /// The server answered, and not with the file.
    #[error("{url} answered with status {status}")]
    Status {
        /// Which URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// How long the server asks to be left alone.
        retry_after: Option<Duration>,
    },

    /// No connection, no TLS, or no HTTP.
    #[error("cannot download {url}")]
    Transport {
        /// Which URL.
        url: String,
        /// What went wrong.
        #[source]
        source: Box<ureq::Error>,
    },

    /// Fewer than [`super::STALL_BYTES`] came in the time allowed.
    #[error("{url} sends nothing or next to nothing for {} s", .timeout.as_secs_f32())]
    Stalled {
        /// Which URL.
        url: String,
        /// The time allowed.
        timeout: Duration,
    },

    /// The connection ended before the file did.
    #[error("{url} ended after {found} of {expected} bytes")]
    Truncated {
        /// Which URL.
        url: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },

    /// Sent on too often.
    #[error("{url} redirects more than {limit} times")]
    Redirects {
        /// Which URL.
        url: String,
        /// How often is allowed.
        limit: usize,
    },

    /// Sent on from https to http.
    #[error("{from} redirects to {to}, which is not encrypted")]
    Downgrade {
        /// The https URL.
        from: String,
        /// The http URL.
        to: String,
    },

    /// Not an http or https URL: where a server or a mirror's template sends us.
    #[error("`{text}` is not an http or https URL")]
    NotUrl {
        /// What is not, escaped.
        text: String,
    },

    /// A proxy's address that is none.
    #[error("{variable} is not the address of a proxy")]
    Proxy {
        /// The environment variable or setting.
        variable: String,
    },

    /// A file of CA certificates, named by a client's configuration, that cannot be used.
    #[error("`{path}` has no certificates that can be read")]
    Certificates {
        /// The file.
        path: PathBuf,
    },

    /// The ecosystem's client is not installed.
    #[error("{client} not found: {location} is fetched with it")]
    MissingClient {
        /// The program.
        client: &'static str,
        /// What it should fetch.
        location: String,
    },

    /// The client cannot be run.
    #[error("cannot run {client}")]
    Client {
        /// The program.
        client: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// The client failed.
    #[error("{client} failed ({status}): {said}")]
    ClientFailed {
        /// The program.
        client: &'static str,
        /// Its exit code or signal.
        status: std::process::ExitStatus,
        /// The end of what it said, on one line.
        said: String,
    },

    /// The client took too long, and was killed.
    #[error("{client} was not done after {} s", .timeout.as_secs())]
    ClientTimeout {
        /// The program.
        client: &'static str,
        /// The time allowed.
        timeout: Duration,
    },

    /// The client succeeded, and what it was to bring is not there.
    #[error("{client} brought no {what}")]
    ClientAnswer {
        /// The program.
        client: &'static str,
        /// What is missing.
        what: &'static str,
    },

    /// A package index that does not speak the format it should.
    #[error("{url} is not a package index")]
    Index {
        /// Which URL.
        url: String,
        /// What is wrong with it; `None` if it is not even UTF-8.
        #[source]
        source: Option<serde_json::Error>,
    },

    /// No index has a file of that name, or with that hash.
    #[error("no index of pip has a file for {location}; of that version there are: {}", List(.found))]
    NoFile {
        /// What was looked for.
        location: String,
        /// The files that version has.
        found: Vec<String>,
    },

    /// Several files, and nothing tells which.
    #[error("{location} has several files, and the index has no {} hashes to tell which: {}", .algorithm, List(.found))]
    WhichFile {
        /// What was looked for.
        location: String,
        /// The algorithm of the fetch's hash.
        algorithm: &'static str,
        /// The files that version has.
        found: Vec<String>,
    },

    /// Our disk.
    #[error("cannot use `{path}`")]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// Every location failed.
    #[error("no location has `{name}`:{}", Attempts(.attempts))]
    Everywhere {
        /// What the derivation is called.
        name: String,
        /// Each location and why it failed, in the order tried; at least two.
        attempts: Vec<(String, FetchError)>,
    },
}

impl FetchError {
    /// The one safe next step, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Offline { .. } => {
                Some("go online, or get the file's archive from a peer by its hash".into())
            }
            Self::Hash { found, .. } => Some(format!(
                "find out why the file is another; only if it should be, put `{found}` into the derivation"
            )),
            Self::TooLong { .. } => Some("if so long a file is expected, raise `fetch.limit`".into()),
            Self::Status { status: 401 | 403 | 407, .. } => Some(
                "the server or a proxy wants a login: name a mirror that does not in `fetch.mirrors`".into(),
            ),
            Self::Status { status: 404 | 410, .. } => {
                Some("the file has moved: add another location to the derivation; its hash stays".into())
            }
            Self::Transport { source, .. } if is_certificate(source) => {
                Some("if your network has a CA of its own, name its file in SSL_CERT_FILE".into())
            }
            Self::Status { .. }
            | Self::Transport { .. }
            | Self::Stalled { .. }
            | Self::Truncated { .. }
            | Self::ClientTimeout { .. } => {
                Some("run the same command again later; what has come is kept where the server allows".into())
            }
            Self::Downgrade { .. } => Some("name the location that it leads to over https".into()),
            Self::Proxy { variable } => Some(format!("set {variable} to `http://HOST:PORT`, or unset it")),
            Self::MissingClient { client, .. } => {
                let (install, mirror) = match *client {
                    "npm" => ("Node.js, which brings npm", "npm"),
                    "pip" => ("Python's pip", "pypi"),
                    _ => ("Rust's cargo", "crate"),
                };
                Some(format!("install {install}, or set a URL template in `fetch.mirrors.{mirror}`"))
            }
            Self::ClientFailed { client, .. } => {
                Some(format!("make {client} itself work first: its own configuration is what is used"))
            }
            Self::NoFile { .. } | Self::WhichFile { .. } => {
                Some("name the file: `pypi:NAME@VERSION#FILE`".into())
            }
            Self::Everywhere { attempts, .. } => {
                let mismatch = attempts.iter().find(|(_, e)| e.is_mismatch());
                let first = || attempts.iter().find(|(_, e)| e.hint().is_some());
                mismatch.or_else(first).and_then(|(_, e)| e.hint())
            }
            Self::Location(_)
            | Self::Cancelled
            | Self::Redirects { .. }
            | Self::NotUrl { .. }
            | Self::Certificates { .. }
            | Self::Client { .. }
            | Self::ClientAnswer { .. }
            | Self::Index { .. }
            | Self::Disk { .. } => None,
        }
    }

    /// Whether a location gave another file than the one expected: worth its own exit code, since
    /// somebody changed something.
    pub fn is_mismatch(&self) -> bool {
        match self {
            Self::Hash { .. } => true,
            Self::Everywhere { attempts, .. } => attempts.iter().any(|(_, e)| e.is_mismatch()),
            _ => false,
        }
    }

    /// Whether the same request may succeed in a moment.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Stalled { .. } | Self::Truncated { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Transport { source, .. } => is_transient(source),
            _ => false,
        }
    }

    /// Whether it is of no use to try another location.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Disk { .. })
    }
}

fn is_certificate(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::Io(e) => e.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// A name that cannot be looked up is not among them: it fails as slowly again, and most often the
/// name is wrong or the machine is off the network.
fn is_transient(error: &ureq::Error) -> bool {
    use std::io::ErrorKind as Kind;
    match error {
        ureq::Error::Io(e) => matches!(
            e.kind(),
            Kind::ConnectionRefused
                | Kind::ConnectionReset
                | Kind::ConnectionAborted
                | Kind::NotConnected
                | Kind::BrokenPipe
                | Kind::UnexpectedEof
                | Kind::TimedOut
                | Kind::WouldBlock
                | Kind::HostUnreachable
                | Kind::NetworkUnreachable
                | Kind::NetworkDown
        ),
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

/// An error and its causes on one line.
pub(super) struct Chain<'a>(pub(super) &'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = source.source();
        }
        Ok(())
    }
}

struct Attempts<'a>(&'a [(String, FetchError)]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(location, error)| write!(f, "\n  {location}: {}", Chain(error)))
    }
}

struct Length(Option<u64>);

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => write!(f, "{bytes} bytes"),
            None => f.write_str("more"),
        }
    }
}

/// Most names that an error lists.
const LISTED: usize = 12;

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let shown = &self.0[..self.0.len().min(LISTED)];
        f.write_str(&shown.join(", "))?;
        if self.0.len() > LISTED {
            write!(f, " and {} more", self.0.len() - LISTED)?;
        }
        Ok(())
    }
}

/// At most `longest` characters of `text` from its end, without control characters, on one line.
pub(super) fn quote(text: &str, longest: usize) -> String {
    let plain = |c: char| if is_plain(c) { c } else { ' ' };
    let words: Vec<_> = text.split(|c: char| plain(c).is_whitespace()).filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    let skipped = line.chars().count().saturating_sub(longest);
    if skipped == 0 { line } else { format!("…{}", line.chars().skip(skipped).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_say_is_quoted_harmlessly() {
        assert_eq!(quote("a\u{1b}[2Jb\r\n\n c\u{202e}d", 99), "a [2Jb c d");
        assert_eq!(quote("abcdef", 3), "…def");
    }

    #[test]
    fn everywhere_lists_each_cause_and_hints_at_the_worst() {
        let status = |status| FetchError::Status { url: "http://a/b".into(), status, retry_after: None };
        let sri = |n: u8| Sri::new(protocol::sri::Algorithm::Sha256, vec![n; 32]).unwrap();
        let hash = FetchError::Hash { expected: sri(1), found: sri(2), location: "npm:a@1.0.0".into() };
        let attempts = vec![("http://a/b".to_owned(), status(500)), ("npm:a@1.0.0".to_owned(), hash)];
        let error = FetchError::Everywhere { name: "a".into(), attempts };
        let text = error.to_string();
        assert!(
            text.contains("\n  http://a/b: http://a/b answered with status 500\n  npm:a@1.0.0: "),
            "{text}"
        );
        assert!(error.is_mismatch());
        assert!(error.hint().unwrap().contains(&sri(2).to_string()));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let status = |status| FetchError::Status { url: String::new(), status, retry_after: None };
        let io = |kind: std::io::ErrorKind| FetchError::Transport {
            url: String::new(),
            source: Box::new(ureq::Error::Io(kind.into())),
        };
        assert!(status(503).is_transient() && status(429).is_transient());
        assert!(!status(404).is_transient() && !status(403).is_transient());
        assert!(io(std::io::ErrorKind::ConnectionRefused).is_transient());
        assert!(!io(std::io::ErrorKind::InvalidData).is_transient());
    }
}
