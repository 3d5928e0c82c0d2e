//! The control socket: how other processes of the owner talk to a running node.
//!
//! HTTP with JSON over a Unix socket in the store's directory, for its user alone. `/v1/` is the
//! version of what is said; a change that an older program would misunderstand gets another.
//!
//! | | | |
//! |---|---|---|
//! | `GET` | `/v1/status` | how the node is |
//! | `GET` | `/v1/settled` | answered when all that is to be had of others' feeds is here |
//! | `POST` | `/v1/fetch` | `{ nar, size }`: a line for each step, up to one that it is done or failed |
//! | `POST` | `/v1/seek` | `{ action }`: an answer of SPEC §17.1, `action` or `absent` |
//! | `POST` | `/v1/log` | `{ action }`: the same, `log` or `absent` |
//! | `POST` | `/v1/wish` | a wish as in SPEC §20: everybody is told |
//! | `GET` | `/v1/wishes` | what is wished, by attester |
//! | `GET` | `/v1/dashboard` | where its dashboard is, with the token to be let in; `null` if it has none |
//! | `POST` | `/v1/stop` | the node ends |
//! | `GET` | `/metrics`, `/health`, `/ready` | for machines; these three also at an address of the network, if the owner wants |
//!
//! A command that finds no node runs one in its own process for as long as it takes, and talks to it
//! in the same way, [`Node`], without a socket.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, body::Bytes};
use hyper_util::rt::TokioIo;
use protocol::{
    id::{ActionId, NarHash},
    key::AttesterKey,
    message::{Answer, KnownAction},
    wish::{UnverifiedWish, Wish},
};
use serde::{Deserialize, Serialize};
use store::socket::{self, SocketName};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
    time,
};

use trust::peer::Sought;

use crate::driver::{Command, Fetched, NodeStatus};

/// Longest answer that is read as one, in bytes, and longest line of one that comes in lines.
const ANSWER_BYTES: usize = 16 << 20;
const LINE_BYTES: usize = 4096;

/// How long a node may take to answer, or to say that it is still there.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it says that it is still there.
const STILL_THERE: Duration = Duration::from_secs(5);

const STATUS: &str = "/v1/status";
const SETTLED: &str = "/v1/settled";
const FETCH: &str = "/v1/fetch";
const SEEK: &str = "/v1/seek";
const LOG: &str = "/v1/log";
const WISH: &str = "/v1/wish";
const WISHES: &str = "/v1/wishes";
const DASHBOARD: &str = "/v1/dashboard";
const STOP: &str = "/v1/stop";

/// Why a node cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be made.
    #[error("cannot make the node's socket")]
    Socket(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The address cannot be listened on.
    #[error("cannot listen on {address} for who collects metrics")]
    Address {
        /// The address.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody is there.
    #[error("no node runs in `{home}`")]
    Nobody {
        /// The store's directory.
        home: PathBuf,
        /// What was found.
        #[source]
        source: io::Error,
    },
    /// It answered with something else.
    #[error("the node did not answer: {0}")]
    Answer(String),
}

/// What an archive is asked for by.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    nar: String,
    size: u64,
}

/// Of which action something is looked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    action: String,
}

/// Where the socket of the store in `home` is.
fn path(home: &Path) -> PathBuf {
    home.join("node.sock")
}

/// The sockets of a node, listened on for as long as this lives.
pub struct Control {
    listener: UnixListener,
    /// For metrics alone.
    metrics: Option<TcpListener>,
    name: SocketName,
}

impl Control {
    /// Listens on the socket of the store in `home`, and on `metrics`. Whoever has the store open
    /// may: a socket that is there is of a node that is gone.
    ///
    /// # Errors
    ///
    /// [`ControlError::Socket`] or [`ControlError::Address`].
    pub async fn bind(home: &Path, metrics: Option<SocketAddr>) -> Result<Self, ControlError> {
        let (listener, name) = socket::listen(&path(home)).map_err(|e| ControlError::Socket(e.into()))?;
        let listener = UnixListener::from_std(listener).map_err(|e| ControlError::Socket(e.into()))?;
        let metrics = match metrics {
            Some(address) => {
                let listening = TcpListener::bind(address).await;
                Some(listening.map_err(|source| ControlError::Address { address, source })?)
            }
            None => None,
        };
        Ok(Self { listener, metrics, name })
    }

    /// Answers until the loop behind `commands` is gone. `dashboard` is where to find the dashboard.
    ///
    /// # Errors
    ///
    /// A socket failed.
    pub async fn serve(self, commands: mpsc::Sender<Command>, dashboard: Option<String>) -> io::Result<()> {
        let Self { listener, metrics, name } = self;
        let for_machines = Router::new()
            .route("/metrics", get(counted))
            .route("/health", get(health))
            .route("/ready", get(ready))
            .with_state(commands.clone());
        let for_owner = Router::new()
            .route(STATUS, get(status))
            .route(SETTLED, get(settled))
            .route(FETCH, post(fetch))
            .route(SEEK, post(async |state, sought| seek(state, sought, Sought::Action).await))
            .route(LOG, post(async |state, sought| seek(state, sought, Sought::Log).await))
            .route(WISH, post(wish))
            .route(WISHES, get(wishes))
            .route(DASHBOARD, get(async || Json(dashboard)))
            .route(STOP, post(stop))
            .with_state(commands.clone())
            .merge(for_machines.clone());
        let gone = commands.clone();
        let owner =
            axum::serve(listener, for_owner).with_graceful_shutdown(async move { gone.closed().await });
        let Some(metrics) = metrics else {
            let served = owner.await;
            drop(name);
            return served;
        };
        let machines =
            axum::serve(metrics, for_machines).with_graceful_shutdown(async move { commands.closed().await });
        let served = tokio::try_join!(owner.into_future(), machines.into_future());
        drop(name);
        served.map(drop)
    }
}

/// What the loop answers; it is gone, or too busy, if it does not.
async fn asked<T>(
    commands: &mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, StatusCode> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    answer.await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

type Commands = State<mpsc::Sender<Command>>;

async fn status(State(commands): Commands) -> Result<Json<NodeStatus>, StatusCode> {
    asked(&commands, Command::Status).await.map(Json)
}

async fn settled(State(commands): Commands) -> Result<(), StatusCode> {
    asked(&commands, Command::Settle).await
}

async fn seek(
    State(commands): Commands,
    Json(about): Json<About>,
    what: fn(ActionId) -> Sought,
) -> Result<Vec<u8>, StatusCode> {
    let sought = what(about.action.parse().map_err(|_| StatusCode::BAD_REQUEST)?);
    let found = asked(&commands, |reply| Command::Seek { sought, reply }).await?;
    Ok(found.unwrap_or(Answer::Absent).to_bytes())
}

async fn wish(State(commands): Commands, bytes: Bytes) -> Result<StatusCode, StatusCode> {
    let wish = UnverifiedWish::from_bytes(&bytes).map_err(|_| StatusCode::BAD_REQUEST)?;
    let wish = wish.verify().map_err(|_| StatusCode::BAD_REQUEST)?;
    commands.send(Command::Wish(wish)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    Ok(StatusCode::ACCEPTED)
}

async fn wishes(State(commands): Commands) -> Result<Json<Wishes>, StatusCode> {
    asked(&commands, Command::Wishes).await.map(|wishes| Json(by_attester(&wishes)))
}

/// What is wished, by attester: texts of keys and of actions.
type Wishes = BTreeMap<String, Vec<String>>;

fn by_attester(wishes: &[Wish]) -> Wishes {
    let texts = |wish: &Wish| wish.actions().iter().map(ToString::to_string).collect();
    wishes.iter().map(|wish| (wish.attester().to_string(), texts(wish))).collect()
}

async fn stop(State(commands): Commands) -> StatusCode {
    match commands.send(Command::Stop).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn counted(State(commands): Commands) -> Result<Response, StatusCode> {
    let text = asked(&commands, Command::Metrics).await?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

/// The loop goes round.
async fn health(State(commands): Commands) -> Result<&'static str, StatusCode> {
    asked(&commands, Command::Status).await.map(|_| "ok\n")
}

/// Somebody is connected, or nobody is to be.
async fn ready(State(commands): Commands) -> Result<&'static str, StatusCode> {
    let status = asked(&commands, Command::Status).await?;
    match status.peers.is_empty() && !status.absent.is_empty() {
        true => Err(StatusCode::SERVICE_UNAVAILABLE),
        false => Ok("ready\n"),
    }
}

async fn fetch(State(commands): Commands, Json(wanted): Json<Wanted>) -> Result<Response, StatusCode> {
    let nar = wanted.nar.parse().map_err(|_| StatusCode::BAD_REQUEST)?;
    let watch = asked(&commands, |reply| Command::Fetch { nar, size: wanted.size, reply }).await?;
    let lines = futures::stream::unfold(Some(watch), |watch| async {
        let mut watch = watch?;
        let state = *watch.borrow_and_update();
        let line = serde_json::to_string(&state).expect("a small structure") + "\n";
        let next = match state {
            Fetched::Coming { .. } => {
                // Whatever happens, or nothing: there is something to say.
                let _ = time::timeout(STILL_THERE, watch.changed()).await;
                Some(watch)
            }
            Fetched::Done | Fetched::Failed { .. } => None,
        };
        Some((Ok::<_, Infallible>(Bytes::from(line)), next))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// A node that can be talked to.
#[derive(Debug, Clone)]
pub enum Node {
    /// Of another process, which has the store in this directory open.
    There(PathBuf),
    /// Of this process.
    Here(mpsc::Sender<Command>),
}

impl Node {
    /// The node that runs for the store in `home`.
    ///
    /// # Errors
    ///
    /// [`ControlError::Nobody`].
    pub fn there(home: &Path) -> Result<Self, ControlError> {
        let found = socket::connect(&path(home));
        found.map_err(|source| ControlError::Nobody { home: home.to_owned(), source })?;
        Ok(Self::There(home.to_owned()))
    }

    /// How it is.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn status(&self) -> Result<NodeStatus, ControlError> {
        match self {
            Self::There(home) => read(home, STATUS).await,
            Self::Here(commands) => asked(commands, Command::Status).await.map_err(ended),
        }
    }

    /// Where its dashboard is, with the token to be let in; `None` if it has none.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn dashboard(&self) -> Result<Option<String>, ControlError> {
        match self {
            Self::There(home) => read(home, DASHBOARD).await,
            Self::Here(_) => Ok(None),
        }
    }

    /// Waits until all nodes that are wanted were dialled, and what those said that answered is
    /// here; false if that takes longer than `patience`.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn settle(&self, patience: Duration) -> Result<bool, ControlError> {
        let settled = async {
            match self {
                Self::There(home) => send(home, Method::GET, SETTLED, None).await.map(drop),
                Self::Here(commands) => asked(commands, Command::Settle).await.map_err(ended),
            }
        };
        time::timeout(patience, settled).await.map_or(Ok(false), |settled| settled.map(|()| true))
    }

    /// Fetches an archive of `size` bytes into the store, and tells `progress` how far it is; the
    /// end is [`Fetched::Done`] or [`Fetched::Failed`].
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn fetch(
        &self,
        nar: NarHash,
        size: u64,
        mut progress: impl FnMut(Fetched),
    ) -> Result<Fetched, ControlError> {
        match self {
            Self::There(home) => {
                let wanted = serde_json::to_vec(&Wanted { nar: nar.to_string(), size });
                let wanted = wanted.expect("a small structure");
                let mut lines =
                    Lines { body: send(home, Method::POST, FETCH, Some(wanted)).await?, read: vec![] };
                loop {
                    match lines.next().await? {
                        coming @ Fetched::Coming { .. } => progress(coming),
                        end => return Ok(end),
                    }
                }
            }
            Self::Here(commands) => {
                let watch = asked(commands, |reply| Command::Fetch { nar, size, reply }).await;
                let mut watch: watch::Receiver<Fetched> = watch.map_err(ended)?;
                loop {
                    match *watch.borrow_and_update() {
                        coming @ Fetched::Coming { .. } => progress(coming),
                        end => return Ok(end),
                    }
                    watch.changed().await.map_err(|_| ended(StatusCode::SERVICE_UNAVAILABLE))?;
                }
            }
        }
    }

    /// Asks others what an action is; `None` if no connected node says.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn seek(&self, action: ActionId) -> Result<Option<Box<KnownAction>>, ControlError> {
        match self.ask_others(SEEK, Sought::Action(action), action).await? {
            Some(Answer::Action(known)) => Ok(Some(known)),
            _ => Ok(None),
        }
    }

    /// Asks others what an action printed when they executed it: the end of it, and how many bytes
    /// are before that. `None` if no connected node says.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn log(&self, action: ActionId) -> Result<Option<(Vec<u8>, u64)>, ControlError> {
        match self.ask_others(LOG, Sought::Log(action), action).await? {
            Some(Answer::Log { end, before }) => Ok(Some((end, before))),
            _ => Ok(None),
        }
    }

    async fn ask_others(
        &self,
        path: &str,
        sought: Sought,
        action: ActionId,
    ) -> Result<Option<Answer>, ControlError> {
        match self {
            Self::There(home) => {
                let about = serde_json::to_vec(&About { action: action.to_string() });
                let about = about.expect("a small structure");
                // Each connected node may take its time.
                let answer = whole(home, Method::POST, path, Some(about), None).await?;
                Answer::from_bytes(&answer).map(Some).map_err(failed)
            }
            Self::Here(commands) => {
                asked(commands, |reply| Command::Seek { sought, reply }).await.map_err(ended)
            }
        }
    }

    /// Tells everybody what the owner wishes.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn wish(&self, wish: Wish) -> Result<(), ControlError> {
        match self {
            Self::There(home) => {
                whole(home, Method::POST, WISH, Some(wish.to_bytes()), Some(PATIENCE)).await.map(drop)
            }
            Self::Here(commands) => {
                let gone = |_| ended(StatusCode::SERVICE_UNAVAILABLE);
                commands.send(Command::Wish(wish)).await.map_err(gone)
            }
        }
    }

    /// What is wished, by attester.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn wishes(&self) -> Result<BTreeMap<AttesterKey, Vec<ActionId>>, ControlError> {
        let wishes: Wishes = match self {
            Self::There(home) => read(home, WISHES).await?,
            Self::Here(commands) => by_attester(&asked(commands, Command::Wishes).await.map_err(ended)?),
        };
        let mut read = BTreeMap::new();
        for (attester, actions) in wishes {
            let actions: Result<_, _> = actions.iter().map(|action| action.parse()).collect();
            read.insert(attester.parse().map_err(failed)?, actions.map_err(failed)?);
        }
        Ok(read)
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// [`ControlError`].
    pub async fn stop(&self) -> Result<(), ControlError> {
        match self {
            Self::There(home) => {
                drop(send(home, Method::POST, STOP, None).await?);
                // When the name of the socket is gone, so is the node, but for the last lines of its end.
                let gone = async {
                    while path(home).exists() {
                        time::sleep(Duration::from_millis(20)).await;
                    }
                };
                let late = |_| ControlError::Answer("it was told to stop, and goes on".into());
                time::timeout(PATIENCE, gone).await.map_err(late)
            }
            Self::Here(commands) => {
                let _ = commands.send(Command::Stop).await;
                Ok(())
            }
        }
    }
}

fn ended(_: StatusCode) -> ControlError {
    ControlError::Answer("it has ended".into())
}

fn failed(error: impl std::fmt::Display) -> ControlError {
    ControlError::Answer(error.to_string())
}

/// Asks, and gives the answer when its head is there.
async fn send(
    home: &Path,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
) -> Result<hyper::body::Incoming, ControlError> {
    let nobody = |source| ControlError::Nobody { home: home.to_owned(), source };
    let stream = socket::connect(&self::path(home)).map_err(nobody)?;
    stream.set_nonblocking(true).map_err(nobody)?;
    let stream = UnixStream::from_std(stream).map_err(nobody)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path).header(header::HOST, "node");
    let request = request.header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(failed)?;
    let answer = sender.send_request(request).await.map_err(failed)?;
    match answer.status() {
        code if code.is_success() => Ok(answer.into_body()),
        code => Err(failed(code)),
    }
}

/// Asks, and reads the whole answer, which may take so long.
async fn whole(
    home: &Path,
    method: Method,
    path: &str,
    body: Option<Vec<u8>>,
    patience: Option<Duration>,
) -> Result<Bytes, ControlError> {
    let exchange = async {
        let body = send(home, method, path, body).await?;
        Ok(Limited::new(body, ANSWER_BYTES).collect().await.map_err(failed)?.to_bytes())
    };
    match patience {
        Some(patience) => time::timeout(patience, exchange).await.unwrap_or_else(|late| Err(failed(late))),
        None => exchange.await,
    }
}

/// Reads what can be read there.
async fn read<T: for<'d> Deserialize<'d>>(home: &Path, path: &str) -> Result<T, ControlError> {
    let bytes = whole(home, Method::GET, path, None, Some(PATIENCE)).await?;
    serde_json::from_slice(&bytes).map_err(failed)
}

/// An answer that comes in lines.
struct Lines {
    body: hyper::body::Incoming,
    read: Vec<u8>,
}

impl Lines {
    async fn next<T: for<'d> Deserialize<'d>>(&mut self) -> Result<T, ControlError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(failed);
            }
            if self.read.len() > LINE_BYTES {
                return Err(failed("a line that does not end"));
            }
            let frame = time::timeout(PATIENCE, self.body.frame()).await.map_err(failed)?;
            let frame = frame.ok_or_else(|| failed("it has ended"))?.map_err(failed)?;
            if let Some(data) = frame.data_ref() {
                self.read.extend_from_slice(data);
            }
        }
    }
}
