//! A little HTTP server for misbehaviour: one request for each connection, answered by a closure
//! that writes what it likes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Result, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET /a HTTP/1.1`.
    pub(crate) line: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

/// A server on the loopback interface, for as long as the test runs.
#[derive(Debug)]
pub(crate) struct Server {
    /// `127.0.0.1:…`.
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `http://` and the address, then `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Asked {
    /// The byte from which on it asks.
    pub(crate) fn range(&self) -> Option<usize> {
        self.headers.get("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// Serves; `answer` is told how many requests there were before.
pub(crate) fn serve(
    answer: impl Fn(usize, &Asked, &mut dyn Write) -> Result<()> + Send + Sync + 'static,
) -> Server {
    serve_streams(answer, |stream, answer| answer(&mut { stream }))
}

/// Serves over TLS.
pub(crate) fn serve_tls(
    config: rustls::ServerConfig,
    answer: impl Fn(usize, &Asked, &mut dyn Write) -> Result<()> + Send + Sync + 'static,
) -> Server {
    let config = Arc::new(config);
    serve_streams(answer, move |stream, answer| {
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut tls = rustls::StreamOwned::new(connection, stream);
        answer(&mut tls)?;
        tls.conn.send_close_notify();
        tls.flush()
    })
}

trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

type Talk<'a> = dyn Fn(&mut dyn Stream) -> Result<()> + 'a;

fn serve_streams(
    answer: impl Fn(usize, &Asked, &mut dyn Write) -> Result<()> + Send + Sync + 'static,
    wrap: impl Fn(TcpStream, &Talk) -> Result<()> + Send + Sync + 'static,
) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, serving) = (asked.clone(), Arc::new((answer, wrap)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, serving) = (log.clone(), serving.clone());
            std::thread::spawn(move || {
                let (answer, wrap) = &*serving;
                // Clients that hang up are part of the tests.
                let _ = wrap(stream.unwrap(), &|stream| {
                    let asked = read(stream)?;
                    let before = {
                        let mut log = log.lock().unwrap();
                        log.push(asked.clone());
                        log.len() - 1
                    };
                    answer(before, &asked, stream)?;
                    stream.flush()
                });
            });
        }
    });
    Server { address, asked }
}

fn read(stream: &mut dyn Stream) -> Result<Asked> {
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next().ok_or(std::io::ErrorKind::UnexpectedEof)??;
    let mut headers = BTreeMap::new();
    for header in lines {
        let header = header?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Asked { line, headers })
}

/// An answer with a body, and more header lines.
pub(crate) fn whole(out: &mut dyn Write, status: &str, headers: &str, body: &[u8]) -> Result<()> {
    write!(out, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n", body.len())?;
    out.write_all(body)
}

/// An answer as a good server gives it: the rest, if a range is asked for and the tag still fits.
pub(crate) fn file(asked: &Asked, out: &mut dyn Write, tag: &str, body: &[u8]) -> Result<()> {
    let tagged = format!("etag: \"{tag}\"\r\n");
    match asked.range().filter(|_| asked.headers.get("if-range") == Some(&format!("\"{tag}\""))) {
        None => whole(out, "200 OK", &tagged, body),
        Some(at) if at >= body.len() => whole(out, "416 Range Not Satisfiable", &tagged, b""),
        Some(at) => {
            let range = format!("{tagged}content-range: bytes {at}-{}/{}\r\n", body.len() - 1, body.len());
            whole(out, "206 Partial Content", &range, &body[at..])
        }
    }
}

/// What is written to it, up to a number of bytes; then the connection breaks.
pub(crate) struct Breaking<'a> {
    /// The connection.
    pub(crate) out: &'a mut dyn Write,
    /// Bytes left.
    pub(crate) left: usize,
}

impl Write for Breaking<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let n = self.out.write(&bytes[..bytes.len().min(self.left)])?;
        self.left -= n;
        if n == 0 { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(n) }
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush()
    }
}
