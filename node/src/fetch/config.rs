//! What a node's owner says about fetching. Read from the node's configuration; an unknown key is
//! an error.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

/// How files are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Config {
    /// Where to ask before asking a location itself.
    pub mirrors: Mirrors,
    /// Never use the network: take only what is on this machine.
    pub offline: bool,
    /// Seconds for a connection to be made, TLS included.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// Seconds in which at least [`super::STALL_BYTES`] must arrive.
    #[serde(with = "seconds")]
    pub stall_timeout: Duration,
    /// Seconds for an ecosystem's client to be done.
    #[serde(with = "seconds")]
    pub client_timeout: Duration,
    /// Bytes of the longest file taken.
    pub limit: u64,
    /// How often a location is tried again after something that may pass.
    pub retries: u32,
    /// Seconds before the first retry; each later one waits twice as long.
    #[serde(with = "seconds")]
    pub retry_delay: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mirrors: Mirrors::default(),
            offline: false,
            connect_timeout: Duration::from_secs(20),
            // Servers that make an archive when it is asked for take their time before the first byte.
            stall_timeout: Duration::from_secs(60),
            client_timeout: Duration::from_secs(600),
            limit: 4 << 30,
            retries: 3,
            retry_delay: Duration::from_secs(1),
        }
    }
}

/// Where to ask first. A mirror need not be believed: what it gives is checked like everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Mirrors {
    /// For `npm:` locations.
    pub npm: Option<Template>,
    /// For `pypi:` locations. With `{file}` it serves only those that name a file.
    pub pypi: Option<Template>,
    /// For `crate:` locations.
    #[serde(rename = "crate")]
    pub crates: Option<Template>,
    /// For URLs: what they begin with, and what that is replaced by. The longest beginning counts.
    pub url: BTreeMap<Prefix, Prefix>,
}

/// A URL with `{name}`, `{version}` and `{file}` in it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(String);

/// The beginning of URLs: whole, up to a `/`, so that `https://a.example/` is not the beginning
/// of `https://a.example.org/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix(String);

/// Why a mirror cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MirrorError {
    /// Not http or https.
    #[error("`{0}` does not begin with `https://` or `http://`")]
    Scheme(String),
    /// A placeholder that is none.
    #[error("`{template}` has `{{{found}}}`; there are `{{name}}`, `{{version}}` and `{{file}}`")]
    Placeholder {
        /// The template.
        template: String,
        /// What stands between the braces.
        found: String,
    },
    /// Neither version nor file: one URL for everything.
    #[error("`{0}` must have `{{version}}` or `{{file}}` in it")]
    Constant(String),
    /// A prefix without its `/`.
    #[error("`{0}` must end with `/`")]
    Open(String),
}

fn check_scheme(text: &str) -> Result<(), MirrorError> {
    if ["https://", "http://"].iter().any(|s| text.starts_with(s)) {
        return Ok(());
    }
    Err(MirrorError::Scheme(text.to_owned()))
}

impl Template {
    /// Checks a template.
    pub fn new(text: impl Into<String>) -> Result<Self, MirrorError> {
        let text = text.into();
        check_scheme(&text)?;
        let mut known = false;
        for part in text.split('{').skip(1) {
            match part.split_once('}').map(|(found, _)| found) {
                Some("name") => {}
                Some("version" | "file") => known = true,
                found => {
                    let found = found.unwrap_or(part).to_owned();
                    return Err(MirrorError::Placeholder { template: text, found });
                }
            }
        }
        if known { Ok(Self(text)) } else { Err(MirrorError::Constant(text)) }
    }

    /// The URL; `None` if it needs a file and there is none.
    pub(super) fn fill(&self, name: &str, version: &str, file: Option<&str>) -> Option<String> {
        if self.0.contains("{file}") && file.is_none() {
            return None;
        }
        // None of the parts can have a brace in it.
        let url = self.0.replace("{name}", name).replace("{version}", version);
        Some(url.replace("{file}", file.unwrap_or_default()))
    }
}

impl TryFrom<String> for Template {
    type Error = MirrorError;

    fn try_from(text: String) -> Result<Self, MirrorError> {
        Self::new(text)
    }
}

impl Prefix {
    /// Checks a prefix.
    pub fn new(text: impl Into<String>) -> Result<Self, MirrorError> {
        let text = text.into();
        check_scheme(&text)?;
        if text.ends_with('/') { Ok(Self(text)) } else { Err(MirrorError::Open(text)) }
    }
}

impl TryFrom<String> for Prefix {
    type Error = MirrorError;

    fn try_from(text: String) -> Result<Self, MirrorError> {
        Self::new(text)
    }
}

impl Mirrors {
    /// Where to ask before asking `url`.
    pub(super) fn rewrite(&self, url: &str) -> Option<String> {
        let fitting = self.url.iter().filter_map(|(from, to)| Some((from, to, url.strip_prefix(&from.0)?)));
        let (_, to, rest) = fitting.max_by_key(|(from, _, _)| from.0.len())?;
        Some(format!("{}{rest}", to.0))
    }
}

mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        u64::deserialize(d).map(Duration::from_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration() {
        let text = r#"{ "limit": 10, "stallTimeout": 5, "mirrors": {
            "crate": "https://m.example/{name}/{file}", "url": { "https://a.example/": "http://[::1]:8/" } } }"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!((config.limit, config.stall_timeout.as_secs(), config.retries), (10, 5, 3));
        let filled = config.mirrors.crates.as_ref().unwrap().fill("a", "1.0.0", Some("a-1.0.0.crate"));
        assert_eq!(filled.unwrap(), "https://m.example/a/a-1.0.0.crate");
        assert_eq!(serde_json::from_str::<Config>("{}").unwrap(), Config::default());
        for bad in [r#"{ "lmit": 1 }"#, r#"{ "mirrors": { "gem": "" } }"#, r#"{ "limit": -1 }"#] {
            assert!(serde_json::from_str::<Config>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn templates_and_prefixes() {
        assert!(matches!(Template::new("ftp://a/{file}"), Err(MirrorError::Scheme(_))));
        assert!(matches!(Template::new("http://a/{files}"), Err(MirrorError::Placeholder { .. })));
        assert!(matches!(Template::new("http://a/{file"), Err(MirrorError::Placeholder { .. })));
        assert!(matches!(Template::new("http://a/{name}"), Err(MirrorError::Constant(_))));
        assert!(matches!(Prefix::new("http://a.example"), Err(MirrorError::Open(_))));
        let file = Template::new("http://a/{file}").unwrap();
        assert_eq!(file.fill("six", "1.16.0", None), None);
    }

    #[test]
    fn the_longest_beginning_is_rewritten() {
        let prefix = |text: &str| Prefix::new(text).unwrap();
        let url = BTreeMap::from([
            (prefix("https://a.example/"), prefix("http://m/all/")),
            (prefix("https://a.example/b/"), prefix("http://m/b/")),
        ]);
        let mirrors = Mirrors { url, ..Mirrors::default() };
        assert_eq!(mirrors.rewrite("https://a.example/b/c").unwrap(), "http://m/b/c");
        assert_eq!(mirrors.rewrite("https://a.example/c").unwrap(), "http://m/all/c");
        assert_eq!(mirrors.rewrite("https://a.example.org/c"), None);
    }
}
