//! `pypi:`: a file of a Python package, from the index that pip is configured to use.
//!
//! `pip download` is no way to do it: to learn a source distribution's metadata it runs the package's
//! own code. So pip is only asked for its configuration (`pip config list`, and the default index
//! from its help), and the index is read here, as PEP 503 and PEP 691 have it.
//!
//! Of pip's settings these count: `index-url`, `extra-index-url`, `no-index`, `cert`, `proxy` and
//! `trusted-host`; from the environment, `[download]` and `[global]`, in that order. Logins may be
//! in the index's URL. Absent: `find-links`, `client-cert`, keyrings and `.netrc`.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use protocol::sri::Sri;
use serde::Deserialize;
use ureq::tls::{PemItem, RootCerts, parse_pem};
use url::Url;

use super::{
    client::Client,
    error::{FetchError, quote},
    http::{self, Job},
};

/// What pip is called in errors.
pub(super) const NAME: &str = "pip";

/// What pip may be installed as.
const PROGRAMS: &[&[&str]] = &[&["pip"], &["pip3"], &["python3", "-m", "pip"]];

/// Bytes of the longest page of an index that is read. The longest known, of packages with
/// thousands of nightly files, have some 20 MB.
const PAGE: u64 = 128 << 20;

/// PEP 691, with the older HTML as the second choice.
const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// The file wanted.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// If not given, the hash must tell.
    pub(super) file: Option<&'a str>,
    pub(super) sri: &'a Sri,
    /// The location, for errors.
    pub(super) location: &'a str,
}

/// Where the file is, and with which client to download it.
pub(super) fn find(
    wanted: &Wanted,
    scratch: &Path,
    job: &mut Job,
) -> Result<(http::Client, Url), FetchError> {
    let pip = Client {
        name: NAME,
        programs: PROGRAMS,
        dir: scratch,
        // Wide enough that pip breaks no URL in its help.
        env: &[("NO_COLOR", "1"), ("COLUMNS", "8192"), ("PIP_DISABLE_PIP_VERSION_CHECK", "1")],
        location: wanted.location,
        timeout: job.config.client_timeout,
    };
    let settings = Settings::parse(&pip.run(&["config", "list"], job.cancel)?);
    let mut client = http::Client::new(job.config);
    settings.apply(&mut client)?;
    let mut indexes = settings.indexes();
    if settings.one("index-url").is_none() && !settings.is_set("no-index") {
        let help = pip.run(&["download", "--help"], job.cancel)?;
        let default = default_index(&help);
        indexes.insert(0, default.ok_or(FetchError::ClientAnswer { client: NAME, what: "index URL" })?);
    }
    let mut files = Vec::new();
    let mut failure = None;
    for index in &indexes {
        match page(&client, index, wanted.name, job) {
            Ok(entries) => files.extend(entries),
            Err(FetchError::Status { status: 404, .. }) => {}
            Err(error) if error.is_final() => return Err(error),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match choose(&files, wanted) {
        Ok(url) => Ok((client, url)),
        Err(error) => Err(failure.unwrap_or(error)),
    }
}

/// What pip is configured to, by `section.name`.
struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Reads `pip config list`: `section.name='value'`, the value as Python's `repr` writes it.
    fn parse(list: &str) -> Self {
        let lines = list.lines().filter_map(|line| line.split_once('='));
        Self(lines.map(|(key, value)| (key.trim().to_owned(), unquote(value.trim()))).collect())
    }

    fn one(&self, name: &str) -> Option<&str> {
        let sections = [":env:", "download", "global"];
        let value = sections.iter().find_map(|section| self.0.get(&format!("{section}.{name}")));
        value.map(|v| v.trim()).filter(|v| !v.is_empty())
    }

    fn is_set(&self, name: &str) -> bool {
        self.one(name)
            .is_some_and(|v| ["1", "true", "yes", "on", "y", "t"].contains(&v.to_lowercase().as_str()))
    }

    fn many(&self, name: &str) -> impl Iterator<Item = &str> {
        self.one(name).unwrap_or_default().split_whitespace()
    }

    /// Without the default one.
    fn indexes(&self) -> Vec<String> {
        if self.is_set("no-index") {
            return Vec::new();
        }
        let first = self.one("index-url").into_iter();
        first.chain(self.many("extra-index-url")).map(str::to_owned).collect()
    }

    fn apply(&self, client: &mut http::Client) -> Result<(), FetchError> {
        client.unchecked = self.many("trusted-host").map(str::to_owned).collect();
        if let Some(proxy) = self.one("proxy") {
            client.proxies =
                std::mem::take(&mut client.proxies).with("pip's setting `proxy`", proxy.to_owned());
        }
        if let Some(path) = self.one("cert") {
            let refused = || FetchError::Certificates { path: path.into() };
            let pem = fs::read(path).map_err(|_| refused())?;
            let certificates = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let certificates: Vec<_> = certificates.collect();
            if certificates.is_empty() {
                return Err(refused());
            }
            client.roots = RootCerts::Specific(Arc::new(certificates));
        }
        Ok(())
    }
}

/// The reverse of Python's `repr` of a string, for what settings contain.
fn unquote(text: &str) -> String {
    let inner = ['\'', '"'].iter().find_map(|q| text.strip_prefix(*q)?.strip_suffix(*q)).unwrap_or(text);
    let (mut value, mut chars) = (String::new(), inner.chars());
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                other => value.extend(other),
            },
            (c, false) => value.push(c),
        }
    }
    value
}

/// The default of `--index-url`, as pip's help states it.
fn default_index(help: &str) -> Option<String> {
    let (_, option) = help.split_once("--index-url")?;
    let (_, default) = option.split_once("(default")?;
    let url = default.split_once(')')?.0.split_whitespace().collect::<String>();
    Some(url).filter(|url| url.contains("://"))
}

/// One file of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    name: String,
    pub(super) url: Url,
    /// Hexadecimal digests by algorithm.
    hashes: BTreeMap<String, String>,
}

/// The files that an index has of a package, of all versions.
fn page(client: &http::Client, index: &str, name: &str, job: &mut Job) -> Result<Vec<Entry>, FetchError> {
    let mut url = http::parse(index)?;
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    let url =
        http::parse(url.join(&format!("{}/", normal(name))).map_or(String::new(), String::from).as_str())?;
    let (bytes, kind, base) = http::document(client, &login_of(url, index)?, ACCEPT, PAGE, job)?;
    let refused = |source| FetchError::Index { url: http::shown(&base), source };
    if kind.contains("json") {
        return json_page(&bytes, &base).map_err(|e| refused(Some(e)));
    }
    let text = String::from_utf8(bytes).map_err(|_| refused(None))?;
    Ok(html_page(&text, &base))
}

/// Joining a relative reference keeps the login of an index; this makes sure that it does.
fn login_of(mut url: Url, index: &str) -> Result<Url, FetchError> {
    let from = http::parse(index)?;
    let _ = url.set_username(from.username());
    let _ = url.set_password(from.password());
    Ok(url)
}

/// PEP 691.
pub(super) fn json_page(bytes: &[u8], base: &Url) -> Result<Vec<Entry>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        filename: String,
        url: String,
        #[serde(default)]
        hashes: BTreeMap<String, String>,
    }
    let page: Page = serde_json::from_slice(bytes)?;
    let entry =
        |file: File| Some(Entry { name: file.filename, url: join(base, &file.url)?, hashes: file.hashes });
    Ok(page.files.into_iter().filter_map(entry).collect())
}

/// PEP 503: anchors whose text is the file's name, with its hash in the fragment.
pub(super) fn html_page(text: &str, base: &Url) -> Vec<Entry> {
    let anchors = text.split("<a ").skip(1);
    let entries = anchors.filter_map(|anchor| {
        let (attributes, rest) = anchor.split_once('>')?;
        let name = rest.split_once('<')?.0.trim().to_owned();
        let (_, href) = attributes.split_once("href=")?;
        let quote = href.chars().next().filter(|q| ['"', '\''].contains(q))?;
        let href = href[1..].split_once(quote)?.0.replace("&amp;", "&");
        let hash = href.split_once('#').and_then(|(_, fragment)| fragment.split_once('='));
        let hashes =
            hash.map(|(algorithm, hex)| (algorithm.to_owned(), hex.to_owned())).into_iter().collect();
        Some(Entry { name, url: join(base, &href)?, hashes })
    });
    entries.collect()
}

/// Where a page's link leads; the login of the page's URL goes along within its origin only.
fn join(base: &Url, href: &str) -> Option<Url> {
    let mut url = base.join(href).ok()?;
    url.set_fragment(None);
    if url.origin() == base.origin() && url.username().is_empty() {
        url.set_username(base.username()).ok()?;
        url.set_password(base.password()).ok()?;
    }
    matches!(url.scheme(), "http" | "https").then_some(url)
}

/// The file of that name; without a name the one with the hash, or the only one of the version.
fn choose(files: &[Entry], wanted: &Wanted) -> Result<Url, FetchError> {
    let of_version: Vec<_> = files.iter().filter(|f| belongs(&f.name, wanted)).collect();
    let names = || {
        let mut names: Vec<_> = of_version.iter().map(|f| quote(&f.name, 128)).collect();
        names.sort();
        names.dedup();
        names
    };
    let none = || FetchError::NoFile { location: wanted.location.to_owned(), found: names() };
    if let Some(name) = wanted.file {
        return files.iter().find(|f| f.name == name).map(|f| f.url.clone()).ok_or_else(none);
    }
    let algorithm = wanted.sri.algorithm().name();
    let hex = data_encoding::HEXLOWER.encode(wanted.sri.digest());
    let hashed = |f: &&&Entry| f.hashes.get(algorithm).is_some_and(|h| h.eq_ignore_ascii_case(&hex));
    if let Some(file) = of_version.iter().find(hashed) {
        return Ok(file.url.clone());
    }
    match of_version.as_slice() {
        // Its hash cannot be known beforehand, or is another: then downloading it will tell.
        [only] => Ok(only.url.clone()),
        [] => Err(none()),
        all if all.iter().all(|f| f.hashes.contains_key(algorithm)) => Err(none()),
        _ => Err(FetchError::WhichFile { location: wanted.location.to_owned(), algorithm, found: names() }),
    }
}

/// Whether a file's name says that it is a wheel or a source distribution of the wanted version.
fn belongs(file: &str, wanted: &Wanted) -> bool {
    let parts = match file.strip_suffix(".whl") {
        Some(stem) => {
            let mut parts = stem.split('-');
            parts.next().zip(parts.next())
        }
        None => {
            let endings = [".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz"];
            endings.iter().find_map(|e| file.strip_suffix(e)).and_then(|stem| stem.rsplit_once('-'))
        }
    };
    let same = |(name, version): (&str, &str)| {
        normal(name) == normal(wanted.name) && release(version) == release(wanted.version)
    };
    parts.is_some_and(same)
}

/// PEP 503's normal form of a name.
fn normal(name: &str) -> String {
    let words = name.split(['-', '_', '.']).filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// A version without what makes no difference among the files of one package: case, `_` for `-`,
/// zeros at the end.
fn release(version: &str) -> String {
    let mut version = version.to_ascii_lowercase().replace('_', "-");
    while let Some(shorter) = version.strip_suffix(".0") {
        version.truncate(shorter.len());
    }
    version
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r"
:env:.index-url='https://u:p%40w@i.example/simple'
download.proxy='proxy.example:3128'
global.extra-index-url='\nhttps://a.example/x\nhttps://b.example/'
global.index-url='https://other.example/'
global.trusted-host='t.example:8443'
";

    #[test]
    fn settings_by_precedence() {
        let settings = Settings::parse(LIST);
        let indexes = ["https://u:p%40w@i.example/simple", "https://a.example/x", "https://b.example/"];
        assert_eq!(settings.indexes(), indexes);
        assert_eq!(settings.one("proxy"), Some("proxy.example:3128"));
        assert_eq!(settings.many("trusted-host").collect::<Vec<_>>(), ["t.example:8443"]);
        assert_eq!(Settings::parse("global.no-index='true'\n:env:.index-url='http://a/'").indexes(), [""; 0]);
    }

    #[test]
    fn help_tells_the_default_index() {
        let help = "  -i, --index-url <url>   Base URL of the Package Index (default\n    https://i.example/simple). This";
        assert_eq!(default_index(help).unwrap(), "https://i.example/simple");
        assert_eq!(default_index("--index-url (default nothing)"), None);
    }

    #[test]
    fn pages() {
        let base: Url = "https://u:p@i.example/simple/six/".parse().unwrap();
        let json = br#"{ "meta": {}, "files": [
            { "filename": "six-1.16.0.tar.gz", "url": "../../files/six-1.16.0.tar.gz", "hashes": { "sha256": "0a" } },
            { "filename": "six-1.16.0-py2.py3-none-any.whl", "url": "https://f.example/w", "size": 3 },
            { "filename": "bad", "url": "file:///etc/passwd" }] }"#;
        let html = r#"<!DOCTYPE html><html><body><a data-x='y' href="../../files/six-1.16.0.tar.gz#sha256=0a">six-1.16.0.tar.gz</a><br/>
            <a href='https://f.example/w'> six-1.16.0-py2.py3-none-any.whl </a></body></html>"#;
        let (from_json, from_html) = (json_page(json, &base).unwrap(), html_page(html, &base));
        assert_eq!(from_json, from_html);
        assert_eq!(from_json[0].url.as_str(), "https://u:p@i.example/files/six-1.16.0.tar.gz");
        assert_eq!(from_json[1].url.as_str(), "https://f.example/w");
    }

    #[test]
    fn the_hash_tells_which_file() {
        let sdist = entry("six-1.16.0.tar.gz", Some(1));
        let wheel = entry("six-1.16.0-py2.py3-none-any.whl", Some(2));
        let (old, plain) = (entry("six-1.15.0.tar.gz", Some(3)), entry("six-1.16.tar.gz", None));
        let all = [sdist.clone(), wheel.clone(), old.clone()];
        assert_eq!(name(&all, 2, None).unwrap(), "six-1.16.0-py2.py3-none-any.whl");
        assert_eq!(name(&all, 9, Some("six-1.16.0.tar.gz")).unwrap(), "six-1.16.0.tar.gz");
        assert!(matches!(name(&all, 3, None), Err(FetchError::NoFile { found, .. }) if found.len() == 2));
        assert!(matches!(name(&all, 2, Some("six.whl")), Err(FetchError::NoFile { .. })));
        assert_eq!(name(&[old.clone(), plain.clone()], 9, None).unwrap(), "six-1.16.tar.gz");
        assert!(matches!(name(&[wheel, plain], 9, None), Err(FetchError::WhichFile { .. })));
        assert!(matches!(name(&[old], 9, None), Err(FetchError::NoFile { found, .. }) if found.is_empty()));
    }

    fn entry(name: &str, hash: Option<u8>) -> Entry {
        let hashes = hash.map(|n| ("sha256".to_owned(), format!("{n:02X}").repeat(32)));
        let url = format!("http://i.example/{name}").parse().unwrap();
        Entry { name: name.to_owned(), url, hashes: hashes.into_iter().collect() }
    }

    fn name(files: &[Entry], hash: u8, file: Option<&str>) -> Result<String, FetchError> {
        let sri = Sri::new(protocol::sri::Algorithm::Sha256, vec![hash; 32]).unwrap();
        let wanted = Wanted { name: "Six", version: "1.16.0", file, sri: &sri, location: "pypi:six@1.16.0" };
        choose(files, &wanted).map(|url| url.path()[1..].to_owned())
    }
}
