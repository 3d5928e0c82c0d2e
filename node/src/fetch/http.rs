//! Downloads over HTTP: redirects, proxies, resuming, stalls.
//!
//! ```text
//! download ── a thread ── exchange: connect, follow redirects, read ── chunks ──▶ partial.rs
//!    ▲ stops waiting at once when cancelled, or when too little comes
//! ```
//!
//! A thread does the reading, so that a cancelled fetch returns at once; left alone, it ends at its
//! next chunk or time-out. Bodies are taken as they come: a content encoding would change the
//! file, so none is asked for and none is undone.

use std::{
    sync::{
        atomic::AtomicBool,
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use ureq::{
    Agent, Body, ProxyProtocol,
    http::{HeaderMap, Request, Response, StatusCode, Uri, header},
    tls::{RootCerts, TlsConfig},
    unversioned::{
        resolver::DefaultResolver,
        transport::{Connector, DefaultConnector},
    },
};
use url::Url;

use super::{
    Config, Progress, STALL_BYTES,
    error::{FetchError, quote},
    forward::Forward,
    partial::{Partial, TICK, check},
    proxy::Proxies,
};

/// How often a location may send us on.
const REDIRECTS: usize = 10;

/// Bytes read from a connection at a time.
const CHUNK: usize = 64 << 10;

/// Chunks read ahead of the disk.
const QUEUE: usize = 8;

/// Bytes that a failed attempt must have added for the next one not to count as a retry.
const ADVANCE: u64 = 1 << 20;

/// Time between two reports of progress.
const REPORT: Duration = Duration::from_millis(100);

/// The longest we wait because a server asks us to.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the longest validator kept; real ones have under 100.
const VALIDATOR: usize = 512;

/// How requests are made.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) proxies: Proxies,
    pub(super) roots: RootCerts,
    /// `host` or `host:port` whose certificates are not checked: pip's `trusted-host`. What comes
    /// from there is checked against its hash all the same.
    pub(super) unchecked: Vec<String>,
    connect_timeout: Duration,
    stall_timeout: Duration,
}

/// What a fetch carries along: its settings, and whom it reports to and obeys.
pub(super) struct Job<'a> {
    pub(super) config: &'a Config,
    pub(super) progress: &'a mut dyn FnMut(Progress),
    pub(super) cancel: &'a AtomicBool,
}

/// Downloads `url` into `partial`; the caller verifies it. True if bytes of an earlier download
/// were kept.
pub(super) fn download(
    client: &Client,
    url: &Url,
    partial: &mut Partial,
    job: &mut Job,
) -> Result<bool, FetchError> {
    let mut retry = Retry::new(job.config);
    loop {
        match attempt(client, url, partial, job) {
            Ok(resumed) => return Ok(resumed),
            Err(error) => retry.pause(error, partial.length(), job.cancel)?,
        }
    }
}

/// A document of at most `limit` bytes, its content type, and the URL that it came from in the end.
pub(super) fn document(
    client: &Client,
    url: &Url,
    accept: &'static str,
    limit: u64,
    job: &mut Job,
) -> Result<(Vec<u8>, String, Url), FetchError> {
    let mut retry = Retry::new(job.config);
    loop {
        match read_document(client, url, accept, limit, job.cancel) {
            Ok(document) => return Ok(document),
            Err(error) => retry.pause(error, 0, job.cancel)?,
        }
    }
}

/// A URL as it may be shown: without user name, password, query and fragment.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let secret = url.query().is_some();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let text = quote(url.as_str(), 256);
    if secret { format!("{text}?…") } else { text }
}

/// Reads an http or https URL.
pub(super) fn parse(text: &str) -> Result<Url, FetchError> {
    let url = Url::parse(text).map_err(|_| not_url(text))?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(not_url(text)) }
}

/// What cannot be read may have secrets anywhere behind its scheme.
fn not_url(text: &str) -> FetchError {
    let start = || format!("{}:…", quote(text.split(':').next().unwrap_or_default(), 64));
    FetchError::NotUrl { text: Url::parse(text).map_or_else(|_| start(), |url| shown(&url)) }
}

impl Client {
    /// Proxies of the environment, certificates of the operating system.
    pub(super) fn new(config: &Config) -> Self {
        Self {
            proxies: Proxies::from_env(),
            roots: RootCerts::PlatformVerifier,
            unchecked: Vec::new(),
            connect_timeout: config.connect_timeout,
            stall_timeout: config.stall_timeout,
        }
    }

    fn get(&self, get: Get) -> Transfer {
        let (sender, receiver) = mpsc::sync_channel(QUEUE);
        let (client, url) = (self.clone(), shown(&get.url));
        std::thread::spawn(move || {
            let end = client.exchange(&get, &sender).map_or_else(Message::Failed, |()| Message::End);
            // Nobody listens when the fetch was cancelled.
            let _ = sender.send(end);
        });
        let window = (Instant::now(), 0);
        Transfer { receiver, url, stall_timeout: self.stall_timeout, window }
    }

    /// Makes a request and everything that follows from it.
    fn exchange(&self, get: &Get, sender: &SyncSender<Message>) -> Result<(), FetchError> {
        let mut url = get.url.clone();
        for _ in 0..=REDIRECTS {
            let response = self.request(get, &url)?;
            match redirect(&url, &response)? {
                Some(next) => url = next,
                None => return self.pass_on(&url, response, sender),
            }
        }
        Err(FetchError::Redirects { url: shown(&get.url), limit: REDIRECTS })
    }

    /// Makes one request.
    fn request(&self, get: &Get, url: &Url) -> Result<Response<Body>, FetchError> {
        let failed = |source| self.failed(url, source);
        let proxy = self.proxies.choose(url)?;
        let tunnel = |p: &ureq::Proxy| {
            url.scheme() == "https" || !matches!(p.protocol(), ProxyProtocol::Http | ProxyProtocol::Https)
        };
        let (through, forwarder) = match proxy {
            Some(proxy) if tunnel(&proxy) => (Some(proxy), None),
            other => (None, other),
        };
        let timeout = Some(self.stall_timeout);
        let tls = TlsConfig::builder().root_certs(self.roots.clone()).disable_verification(self.trusts(url));
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(through)
            .tls_config(tls.build())
            .timeout_resolve(Some(self.connect_timeout))
            .timeout_connect(Some(self.connect_timeout))
            .timeout_send_request(timeout)
            .timeout_recv_response(timeout)
            .timeout_per_read(timeout)
            .timeout_per_write(timeout)
            .user_agent(concat!("assize/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = match &forwarder {
            Some(_) => {
                let forward = Forward { origin: format!("http://{}", authority(url)) };
                Agent::with_parts(config, DefaultConnector::new().chain(forward), DefaultResolver::default())
            }
            None => config.new_agent(),
        };
        let mut request = Request::get(target(url, forwarder.as_ref()).map_err(failed)?)
            .header(header::ACCEPT, get.accept)
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(proxy) = &forwarder {
            request = request.header(header::HOST, authority(url));
            if let Some(name) = proxy.username() {
                let login = basic(name, proxy.password().unwrap_or_default());
                request = request.header(header::PROXY_AUTHORIZATION, login);
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            let decode = |text: &str| percent_decode(text);
            let login = basic(&decode(url.username()), &decode(url.password().unwrap_or_default()));
            request = request.header(header::AUTHORIZATION, login);
        }
        if let Some((at, validator)) = &get.from {
            request =
                request.header(header::RANGE, format!("bytes={at}-")).header(header::IF_RANGE, validator);
        }
        let request = request.body(()).map_err(|e| failed(e.into()))?;
        agent.run(request).map_err(failed)
    }

    /// Sends the head of the answer and its body.
    fn pass_on(
        &self,
        url: &Url,
        response: Response<Body>,
        sender: &SyncSender<Message>,
    ) -> Result<(), FetchError> {
        let (parts, body) = response.into_parts();
        let head = Head { status: parts.status, headers: parts.headers, url: url.clone() };
        if sender.send(Message::Head(Box::new(head))).is_err() {
            return Ok(());
        }
        let mut reader = body.into_reader();
        loop {
            let mut chunk = vec![0; CHUNK];
            let n = std::io::Read::read(&mut reader, &mut chunk).map_err(|e| self.failed(url, e.into()))?;
            chunk.truncate(n);
            if n == 0 || sender.send(Message::Chunk(chunk)).is_err() {
                return Ok(());
            }
        }
    }

    fn failed(&self, url: &Url, source: ureq::Error) -> FetchError {
        match source {
            ureq::Error::Timeout(
                ureq::Timeout::PerRead | ureq::Timeout::RecvResponse | ureq::Timeout::PerWrite,
            ) => FetchError::Stalled { url: shown(url), timeout: self.stall_timeout },
            source => FetchError::Transport { url: shown(url), source: Box::new(source) },
        }
    }

    fn trusts(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        self.unchecked.iter().any(|trusted| trusted == host || *trusted == authority(url))
    }
}

/// What to ask for.
struct Get {
    url: Url,
    accept: &'static str,
    /// From which byte on, if the file still has this validator.
    from: Option<(u64, String)>,
}

/// What the reading thread says: one head, chunks, one end.
enum Message {
    Head(Box<Head>),
    Chunk(Vec<u8>),
    End,
    Failed(FetchError),
}

struct Head {
    status: StatusCode,
    headers: HeaderMap,
    url: Url,
}

impl Head {
    fn text(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn length(&self) -> Option<u64> {
        self.text(header::CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// Where the bytes of a partial answer begin.
    fn range_start(&self) -> Option<u64> {
        let range = self.text(header::CONTENT_RANGE)?.strip_prefix("bytes ")?;
        range.split_once('-')?.0.trim().parse().ok()
    }

    /// What `If-Range` may be given: RFC 9110 §13.1.5 has no weak tags there.
    fn validator(&self) -> Option<String> {
        let strong = self.text(header::ETAG).filter(|tag| tag.starts_with('"'));
        let validator = strong.or_else(|| self.text(header::LAST_MODIFIED))?;
        (validator.len() <= VALIDATOR).then(|| validator.to_owned())
    }

    fn refusal(&self) -> FetchError {
        let seconds = self.text(header::RETRY_AFTER).and_then(|s| s.trim().parse().ok());
        FetchError::Status {
            url: shown(&self.url),
            status: self.status.as_u16(),
            retry_after: seconds.map(Duration::from_secs),
        }
    }
}

/// The listening end of an exchange.
struct Transfer {
    receiver: Receiver<Message>,
    url: String,
    stall_timeout: Duration,
    /// Since when bytes are counted, and how many came.
    window: (Instant, usize),
}

impl Transfer {
    fn head(&mut self, cancel: &AtomicBool) -> Result<Head, FetchError> {
        loop {
            match self.receiver.recv_timeout(TICK) {
                Ok(Message::Head(head)) => {
                    self.window = (Instant::now(), 0);
                    return Ok(*head);
                }
                Ok(Message::Failed(error)) => return Err(error),
                Ok(Message::Chunk(_) | Message::End) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.broken());
                }
                Err(RecvTimeoutError::Timeout) => check(cancel)?,
            }
        }
    }

    /// The next bytes; `None` at the end.
    fn chunk(&mut self, cancel: &AtomicBool) -> Result<Option<Vec<u8>>, FetchError> {
        loop {
            let message = self.receiver.recv_timeout(TICK);
            check(cancel)?;
            match message {
                Ok(Message::Chunk(bytes)) => {
                    self.window.1 += bytes.len();
                    self.check_speed()?;
                    return Ok(Some(bytes));
                }
                Ok(Message::End) => return Ok(None),
                Ok(Message::Failed(error)) => return Err(error),
                Ok(Message::Head(_)) | Err(RecvTimeoutError::Disconnected) => return Err(self.broken()),
                Err(RecvTimeoutError::Timeout) => self.check_speed()?,
            }
        }
    }

    fn check_speed(&mut self) -> Result<(), FetchError> {
        let (since, bytes) = self.window;
        if since.elapsed() < self.stall_timeout {
            return Ok(());
        }
        self.window = (Instant::now(), 0);
        if bytes < STALL_BYTES {
            return Err(FetchError::Stalled { url: self.url.clone(), timeout: self.stall_timeout });
        }
        Ok(())
    }

    /// The thread is gone without a word: it can only have panicked.
    fn broken(&self) -> FetchError {
        FetchError::Transport { url: self.url.clone(), source: Box::new(ureq::Error::ConnectionFailed) }
    }
}

/// One request, and what it adds to `partial`. True if it went on with what there was.
fn attempt(client: &Client, url: &Url, partial: &mut Partial, job: &mut Job) -> Result<bool, FetchError> {
    let mut from = partial.resumable(url.as_str());
    let (mut transfer, head) = loop {
        let mut transfer = client.get(Get { url: url.clone(), accept: "*/*", from: from.clone() });
        let head = transfer.head(job.cancel)?;
        match (head.status, &from) {
            (StatusCode::PARTIAL_CONTENT, Some((at, _))) if head.range_start() == Some(*at) => {
                partial.resume(job.cancel)?;
                (job.progress)(Progress::Resuming { at: *at });
                break (transfer, head);
            }
            (StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE, Some(_)) => from = None,
            (StatusCode::OK, _) => {
                partial.restart(url.as_str(), head.validator())?;
                from = None;
                break (transfer, head);
            }
            _ => return Err(head.refusal()),
        }
    };
    let total = head.length().map(|length| partial.length() + length);
    match receive(&mut transfer, total, url, partial, job) {
        Err(FetchError::Transport { source, .. }) if is_end(&source) && total.is_some() => {
            let (expected, found) = (total.unwrap_or_default(), partial.length());
            Err(FetchError::Truncated { url: shown(url), expected, found })
        }
        Err(error @ FetchError::TooLong { .. }) => {
            partial.restart(url.as_str(), None)?;
            Err(error)
        }
        other => other.map(|()| from.is_some()),
    }
}

fn receive(
    transfer: &mut Transfer,
    total: Option<u64>,
    url: &Url,
    partial: &mut Partial,
    job: &mut Job,
) -> Result<(), FetchError> {
    let limit = job.config.limit;
    let too_long = |found| FetchError::TooLong { location: shown(url), found, limit };
    if total.is_some_and(|total| total > limit) {
        return Err(too_long(total));
    }
    let mut reported = None::<Instant>;
    while let Some(bytes) = transfer.chunk(job.cancel)? {
        if partial.length() + bytes.len() as u64 > limit {
            return Err(too_long(None));
        }
        partial.add(&bytes)?;
        if reported.is_none_or(|at| at.elapsed() >= REPORT) {
            reported = Some(Instant::now());
            (job.progress)(Progress::Bytes { done: partial.length(), total });
        }
    }
    let found = partial.length();
    (job.progress)(Progress::Bytes { done: found, total });
    match total {
        Some(expected) if found < expected => Err(FetchError::Truncated { url: shown(url), expected, found }),
        _ => Ok(()),
    }
}

fn read_document(
    client: &Client,
    url: &Url,
    accept: &'static str,
    limit: u64,
    cancel: &AtomicBool,
) -> Result<(Vec<u8>, String, Url), FetchError> {
    let mut transfer = client.get(Get { url: url.clone(), accept, from: None });
    let head = transfer.head(cancel)?;
    if head.status != StatusCode::OK {
        return Err(head.refusal());
    }
    let mut document = Vec::new();
    while let Some(bytes) = transfer.chunk(cancel)? {
        if document.len() as u64 + bytes.len() as u64 > limit {
            return Err(FetchError::TooLong { location: shown(url), found: None, limit });
        }
        document.extend_from_slice(&bytes);
    }
    let kind = head.text(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    Ok((document, kind, head.url))
}

/// Whether and when to try again.
struct Retry {
    left: u32,
    retries: u32,
    delay: Duration,
    first_delay: Duration,
    /// The most bytes there have been.
    most: u64,
}

impl Retry {
    fn new(config: &Config) -> Self {
        let (left, delay) = (config.retries, config.retry_delay);
        Self { left, retries: left, delay, first_delay: delay, most: 0 }
    }

    /// Waits before the next attempt, or gives the error back if there is none. An attempt that
    /// has got on well does not count, so that a long file comes over a bad line.
    fn pause(&mut self, error: FetchError, length: u64, cancel: &AtomicBool) -> Result<(), FetchError> {
        if !error.is_transient() {
            return Err(error);
        }
        if length >= self.most + ADVANCE {
            (self.left, self.delay, self.most) = (self.retries, self.first_delay, length);
        }
        if self.left == 0 {
            return Err(error);
        }
        self.left -= 1;
        let asked = match error {
            FetchError::Status { retry_after, .. } => retry_after.unwrap_or_default().min(PATIENCE),
            _ => Duration::ZERO,
        };
        let until = Instant::now() + self.delay.max(asked);
        self.delay *= 2;
        while let Some(rest) = until.checked_duration_since(Instant::now()) {
            check(cancel)?;
            std::thread::sleep(rest.min(TICK));
        }
        Ok(())
    }
}

/// Where an answer sends us, if it does.
fn redirect(url: &Url, response: &Response<Body>) -> Result<Option<Url>, FetchError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let to = response.headers().get(header::LOCATION).map(|v| String::from_utf8_lossy(v.as_bytes()));
    let to = to.unwrap_or_default();
    let mut next = url.join(&to).map_err(|_| not_url(&to))?;
    match (url.scheme(), next.scheme()) {
        ("https", "http") => return Err(FetchError::Downgrade { from: shown(url), to: shown(&next) }),
        (_, "http" | "https") => {}
        _ => return Err(not_url(next.as_str())),
    }
    // A login goes where it was meant for, and nowhere else.
    let login = if next.origin() == url.origin() { (url.username(), url.password()) } else { ("", None) };
    next.set_username(login.0).and_then(|()| next.set_password(login.1)).map_err(|()| not_url(&to))?;
    Ok(Some(next))
}

/// Whom to ask for what: the URL without login and fragment or, if a proxy is to forward the request,
/// its path and query at the proxy.
fn target(url: &Url, forwarder: Option<&ureq::Proxy>) -> Result<Uri, ureq::Error> {
    let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let text = match forwarder {
        None => format!("{}://{}{path}", url.scheme(), authority(url)),
        Some(proxy) => {
            let scheme = if proxy.protocol() == ProxyProtocol::Https { "https" } else { "http" };
            format!("{scheme}://{}:{}{path}", proxy.host(), proxy.port())
        }
    };
    text.parse::<Uri>().map_err(|e| ureq::Error::Http(e.into()))
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn basic(name: &str, password: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(format!("{name}:{password}").as_bytes()))
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| byte == b'%');
        match code.and_then(|hex| data_encoding::HEXLOWER_PERMISSIVE.decode(hex).ok()) {
            Some(decoded) => {
                bytes.extend(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_end(error: &ureq::Error) -> bool {
    matches!(error, ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let url = parse("https://user:secret@h.example/a?token=secret#secret").unwrap();
        assert_eq!(shown(&url), "https://h.example/a?…");
        let error = parse("gopher://user:secret@h/?secret").unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn logins() {
        assert_eq!(percent_decode("a%40b%2"), "a@b%2");
        assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }

    #[test]
    fn validators() {
        let head = |pairs: &[(header::HeaderName, &str)]| Head {
            status: StatusCode::OK,
            headers: pairs.iter().map(|(k, v)| (k.clone(), v.parse().unwrap())).collect(),
            url: parse("http://h/").unwrap(),
        };
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(head(&[(header::ETAG, "\"a\"")]).validator().unwrap(), "\"a\"");
        let weak = head(&[(header::ETAG, "W/\"a\""), (header::LAST_MODIFIED, date)]);
        assert_eq!(weak.validator().unwrap(), date);
        assert_eq!(head(&[(header::ETAG, "W/\"a\"")]).validator(), None);
        assert_eq!(head(&[(header::CONTENT_RANGE, "bytes 5-9/10")]).range_start(), Some(5));
        assert_eq!(head(&[(header::CONTENT_RANGE, "bytes */10")]).range_start(), None);
    }
}
