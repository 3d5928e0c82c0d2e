//! Plain http through an http proxy.
//!
//! The HTTP library asks proxies for a tunnel (`CONNECT`) whatever the URL. For http many proxies
//! refuse one, since what they expect is a request with the whole URL in its first line (RFC 9112
//! §3.2.2). So such a request is made to the proxy, as if the file were there, and its first
//! line is completed on its way out.

use ureq::{
    Error,
    unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport},
};

/// Completes the first line of a request with the origin of its URL, such as `http://a.example:81`.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) origin: String,
}

/// A connection to a proxy.
#[derive(Debug)]
pub(super) struct Forwarded<T> {
    inner: T,
    /// Until it has been sent.
    origin: Option<String>,
}

impl<In: Transport> Connector<In> for Forward {
    type Out = Forwarded<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Forwarded { inner, origin: Some(self.origin.clone()) }))
    }
}

impl<T: Transport> Transport for Forwarded<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let amount = match self.origin.take() {
            Some(origin) => complete(self.inner.buffers().output(), amount, &origin)?,
            None => amount,
        };
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Puts `origin` between `GET ` and the path of the request in the first `length` bytes of `buffer`;
/// returns how long it is then.
fn complete(buffer: &mut [u8], length: usize, origin: &str) -> Result<usize, Error> {
    const METHOD: usize = "GET ".len();
    let longer = length + origin.len();
    if !buffer[..length].starts_with(b"GET /") || longer > buffer.len() {
        return Err(Error::Other("the request cannot be sent through a proxy".into()));
    }
    buffer.copy_within(METHOD..length, METHOD + origin.len());
    buffer[METHOD..METHOD + origin.len()].copy_from_slice(origin.as_bytes());
    Ok(longer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_completed() {
        let mut buffer = *b"GET /b HTTP/1.1\r\n\r\n----------";
        let length = complete(&mut buffer, 19, "http://a").unwrap();
        assert_eq!(&buffer[..length], b"GET http://a/b HTTP/1.1\r\n\r\n");
        assert!(complete(&mut buffer, 27, "http://a").is_err());
        assert!(complete(&mut { *b"HEAD / HTTP/1.1        " }, 10, "http://a").is_err());
    }
}
