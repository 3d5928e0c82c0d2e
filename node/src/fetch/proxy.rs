//! Which proxy a URL is fetched through: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`,
//! in either case, as curl and most others read them.
//!
//! The HTTP library has its own reading of these, which sends http URLs through the https proxy
//! and knows no networks in `NO_PROXY`; hence this one.

use std::net::IpAddr;

use url::{Host, Url};

use super::error::FetchError;

/// The proxies of an environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    http: Option<(String, String)>,
    https: Option<(String, String)>,
    all: Option<(String, String)>,
    none: String,
}

impl Proxies {
    /// What the environment says.
    pub(super) fn from_env() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    /// Lower case wins, as it does for curl: a web server may set `HTTP_PROXY` from a request.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let named = |name: &str| {
            let both = [name.to_ascii_lowercase(), name.to_ascii_uppercase()];
            both.into_iter().find_map(|n| variable(&n).filter(|v| !v.trim().is_empty()).map(|v| (n, v)))
        };
        Self {
            http: named("http_proxy"),
            https: named("https_proxy"),
            all: named("all_proxy"),
            none: named("no_proxy").map(|(_, value)| value).unwrap_or_default(),
        }
    }

    /// One proxy for everything that `NO_PROXY` does not except: a client's own setting.
    pub(super) fn with(self, setting: &str, address: String) -> Self {
        Self { http: None, https: None, all: Some((setting.to_owned(), address)), ..self }
    }

    /// The proxy for `url`, if any.
    pub(super) fn choose(&self, url: &Url) -> Result<Option<ureq::Proxy>, FetchError> {
        let own = if url.scheme() == "http" { &self.http } else { &self.https };
        let Some((variable, address)) = own.as_ref().or(self.all.as_ref()) else {
            return Ok(None);
        };
        if self.excepts(url) {
            return Ok(None);
        }
        let proxy = ureq::Proxy::new(address.trim());
        proxy.map(Some).map_err(|_| FetchError::Proxy { variable: variable.clone() })
    }

    fn excepts(&self, url: &Url) -> bool {
        let entries = self.none.split([',', ' ', '\t']).filter(|e| !e.is_empty());
        entries.into_iter().any(|entry| excepts(entry, url))
    }
}

/// Whether one entry of `NO_PROXY` is about `url`: `*`, a host and all below it, an address, a
/// network, each but the last with a port or without.
fn excepts(entry: &str, url: &Url) -> bool {
    let Some(host) = url.host() else {
        return false;
    };
    if entry == "*" {
        return true;
    }
    let address = match host {
        Host::Ipv4(v4) => Some(IpAddr::from(v4)),
        Host::Ipv6(v6) => Some(IpAddr::from(v6)),
        Host::Domain(_) => None,
    };
    if let Some((network, bits)) = entry.split_once('/') {
        let network = network.parse::<IpAddr>().ok().zip(bits.parse().ok());
        return address.zip(network).is_some_and(|(a, (n, bits))| within(a, n, bits));
    }
    let (entry, port) = match entry.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => (name, port.parse::<u16>().ok()),
        _ => (entry, None),
    };
    if port.is_some() && port != url.port_or_known_default() {
        return false;
    }
    match host {
        Host::Domain(domain) => {
            let entry = entry.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
            let above = domain.strip_suffix(&entry);
            !entry.is_empty() && above.is_some_and(|a| a.is_empty() || a.ends_with('.'))
        }
        _ => entry.trim_matches(['[', ']']).parse().ok() == address,
    }
}

fn within(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let same = |a: u128, b: u128, all: u32| bits <= all && (bits == 0 || (a ^ b) >> (all - bits) == 0);
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => same(a.to_bits().into(), n.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => same(a.to_bits(), n.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_proxy() {
        let both = "HTTP_PROXY=http://h:1 HTTPS_PROXY=http://s:2";
        check(both, "http://a.example/", Some("h"));
        check(both, "https://a.example/", Some("s"));
        check("all_proxy=socks5://all:3 https_proxy=s:2", "http://a.example/", Some("all"));
        check("all_proxy=socks5://all:3 https_proxy=s:2", "https://a.example/", Some("s"));
        check("http_proxy=http://low:1 HTTP_PROXY=http://up:1", "http://a.example/", Some("low"));
        check("http_proxy= HTTPS_PROXY=http://s:1", "http://a.example/", None);
    }

    #[test]
    fn no_proxy() {
        for (none, url, excepted) in [
            ("*", "http://a.example/", true),
            ("a.example", "http://a.example/", true),
            ("A.Example", "http://b.a.example/", true),
            (".a.example", "http://a.example/", true),
            ("*.a.example", "http://b.a.example/", true),
            ("a.example", "http://ba.example/", false),
            ("a.example:8080", "http://a.example/", false),
            ("a.example:80", "http://a.example/", true),
            ("x,127.0.0.1", "http://127.0.0.1:8080/", true),
            ("127.0.0.1:8081", "http://127.0.0.1:8080/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("0.0.0.0/0", "http://11.1.2.3/", true),
            ("::1", "http://[::1]/", true),
            ("[::1]:80", "http://[::1]/", true),
            ("fd00::/8", "http://[fd00::1]/", true),
            ("10.0.0.0/99", "http://10.0.0.0/", false),
            (",", "http://a.example/", false),
        ] {
            let proxies = Proxies::read(environment(&format!("http_proxy=http://h:1 no_proxy={none}")));
            assert_eq!(proxies.choose(&url.parse().unwrap()).unwrap().is_none(), excepted, "{none} {url}");
        }
    }

    #[test]
    fn a_bad_proxy_is_named_by_its_variable_alone() {
        let proxies = Proxies::read(environment("HTTPS_PROXY=gopher://user:secret@p"));
        let error = proxies.choose(&"https://a.example/".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "HTTPS_PROXY is not the address of a proxy");
    }

    fn environment(text: &str) -> impl Fn(&str) -> Option<String> + '_ {
        move |name| text.split(' ').find_map(|v| v.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    }

    #[track_caller]
    fn check(text: &str, url: &str, expected: Option<&str>) {
        let proxy = Proxies::read(environment(text)).choose(&url.parse().unwrap()).unwrap();
        assert_eq!(proxy.as_ref().map(|p| p.host()), expected);
    }
}
