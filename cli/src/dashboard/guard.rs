//! Who is let in: a browser of this machine that was given the token, and no page of another site
//! that makes it ask.

use std::net::SocketAddr;

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};

/// What a browser is told with every answer: take nothing from elsewhere, obey nothing inline, keep
/// nothing, tell nobody, and be in nobody's frame.
pub(super) const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // `no-referrer` would have a form of ours come from nowhere: `Origin: null`.
    (header::REFERRER_POLICY, "same-origin"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Bytes of the token.
const TOKEN_BYTES: usize = 16;

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is answered.
    In,
    /// It brought the token: the browser keeps it as this cookie, and asks for the first page again.
    Welcome(String),
    /// It is not answered.
    Out(StatusCode),
}

/// Who may see the dashboard at this address.
pub(super) struct Guard {
    address: SocketAddr,
    token: String,
}

impl Guard {
    /// With a new token.
    pub(super) fn new(address: SocketAddr) -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self { address, token: data_encoding::HEXLOWER.encode(&bytes) })
    }

    /// Where a browser is let in.
    pub(super) fn url(&self) -> String {
        format!("http://{}/?token={}", self.address, self.token)
    }

    /// Decides about a request.
    pub(super) fn admit(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Admission {
        let one = |name: HeaderName| {
            let mut all = headers.get_all(name).iter();
            all.next().filter(|_| all.next().is_none()).and_then(|value| value.to_str().ok())
        };
        // A name that leads here today and led elsewhere when its page was loaded is not ours.
        let port = self.address.port();
        let ours = [self.address.to_string(), format!("localhost:{port}")];
        let Some(host) = one(header::HOST).filter(|host| ours.iter().any(|ours| ours == host)) else {
            return Admission::Out(StatusCode::MISDIRECTED_REQUEST);
        };
        let origin = headers.get(header::ORIGIN).map(HeaderValue::as_bytes);
        let own = format!("http://{host}");
        match (method, origin) {
            (&Method::GET, None) => {}
            (&Method::GET | &Method::POST, Some(origin)) if origin == own.as_bytes() => {}
            (&Method::GET | &Method::POST, _) => return Admission::Out(StatusCode::FORBIDDEN),
            _ => return Admission::Out(StatusCode::METHOD_NOT_ALLOWED),
        }
        // Cookies are for all ports of a host.
        let name = format!("assize-{port}=");
        let cookies = one(header::COOKIE).unwrap_or_default().split("; ");
        let mut tokens = cookies.filter_map(|cookie| cookie.strip_prefix(name.as_str()));
        if tokens.any(|token| self.is(token)) {
            return Admission::In;
        }
        let given = uri.query().and_then(|query| query.strip_prefix("token="));
        match given.filter(|token| (method, uri.path()) == (&Method::GET, "/") && self.is(token)) {
            Some(token) => Admission::Welcome(format!("{name}{token}; Path=/; HttpOnly; SameSite=Strict")),
            None => Admission::Out(StatusCode::UNAUTHORIZED),
        }
    }

    /// In a time that tells nothing.
    fn is(&self, token: &str) -> bool {
        blake3::hash(token.as_bytes()) == blake3::hash(self.token.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, uri: &str, headers: &[(HeaderName, &str)]) -> (Guard, Admission) {
        let guard = Guard { address: "127.0.0.1:80".parse().unwrap(), token: "secret".into() };
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let admission = guard.admit(&method, &uri.parse().unwrap(), &headers);
        (guard, admission)
    }

    #[test]
    fn who_is_let_in() {
        use header::{COOKIE, HOST, ORIGIN};
        let (host, cookie) = ((HOST, "127.0.0.1:80"), (COOKIE, "a=b; assize-80=secret"));
        let own = (ORIGIN, "http://127.0.0.1:80");
        let get = |uri: &str, headers: &[_]| ask(Method::GET, uri, headers).1;
        let post = |headers: &[_]| ask(Method::POST, "/", headers).1;
        let out = |code: StatusCode| Admission::Out(code);
        assert_eq!(get("/", &[host.clone(), cookie.clone()]), Admission::In);
        assert_eq!(get("/", &[(HOST, "localhost:80"), cookie.clone()]), Admission::In);
        assert_eq!(post(&[host.clone(), cookie.clone(), own.clone()]), Admission::In);
        // Without the token, or with another one.
        for headers in [
            vec![host.clone()],
            vec![host.clone(), (COOKIE, "assize-80=secre")],
            vec![host.clone(), (COOKIE, "assize-81=secret")],
            vec![host.clone(), (COOKIE, "xassize-80=secret")],
        ] {
            assert_eq!(get("/", &headers), out(StatusCode::UNAUTHORIZED), "{headers:?}");
        }
        assert_eq!(get("/?token=secre", std::slice::from_ref(&host)), out(StatusCode::UNAUTHORIZED));
        // A name that was made to lead here.
        for host in ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:81"] {
            assert_eq!(get("/", &[(HOST, host), cookie.clone()]), out(StatusCode::MISDIRECTED_REQUEST));
        }
        assert_eq!(get("/", std::slice::from_ref(&cookie)), out(StatusCode::MISDIRECTED_REQUEST));
        assert_eq!(
            get("/", &[host.clone(), (HOST, "127.0.0.1:80"), cookie.clone()]),
            out(StatusCode::MISDIRECTED_REQUEST)
        );
        // A page of another site, or one that does not say, wants something done.
        for origin in [Some("http://evil.example"), Some("null"), Some("http://localhost:80"), None] {
            let mut headers = vec![host.clone(), cookie.clone()];
            headers.extend(origin.map(|origin| (ORIGIN, origin)));
            assert_eq!(post(&headers), out(StatusCode::FORBIDDEN), "{origin:?}");
        }
        assert_eq!(
            get("/", &[host.clone(), cookie.clone(), (ORIGIN, "http://evil.example")]),
            out(StatusCode::FORBIDDEN)
        );
        assert_eq!(ask(Method::PUT, "/", &[host, cookie]).1, out(StatusCode::METHOD_NOT_ALLOWED));
    }

    #[test]
    fn the_token_becomes_a_cookie() {
        let (guard, admission) = ask(Method::GET, "/?token=secret", &[(header::HOST, "127.0.0.1:80")]);
        assert_eq!(guard.url(), "http://127.0.0.1:80/?token=secret");
        let cookie = "assize-80=secret; Path=/; HttpOnly; SameSite=Strict".into();
        assert_eq!(admission, Admission::Welcome(cookie));
        let (_, admission) = ask(
            Method::POST,
            "/?token=secret",
            &[(header::HOST, "127.0.0.1:80"), (header::ORIGIN, "http://127.0.0.1:80")],
        );
        assert_eq!(admission, Admission::Out(StatusCode::UNAUTHORIZED));
    }
}
