//! The control socket: how other processes of the owner talk to a running node.
//!
//! HTTP with JSON over a Unix socket in the store's directory, for its user alone. `/v1/` is the
//! version of what is said; a change that an older program would misunderstand gets another.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time,
};

use crate::driver::{Command, NodeStatus};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES: usize = 16 << 20;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a running node cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The socket cannot be made.
    #[error("cannot make the socket `{path}`")]
    Socket {
        /// The socket.
        path: PathBuf,
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

/// Where the socket of the store in `home` is.
pub fn socket(home: &Path) -> PathBuf {
    home.join("node.sock")
}

/// Makes the socket. Whoever has the store open may: one that is there is of a node that is gone.
///
/// # Errors
///
/// [`ControlError::Socket`].
pub fn bind(home: &Path) -> Result<UnixListener, ControlError> {
    let path = socket(home);
    let made = || {
        if fs::symlink_metadata(&path).is_ok_and(|found| found.file_type().is_socket()) {
            fs::remove_file(&path)?;
        }
        // In a directory that nobody else can enter, so that there is no moment at which others can connect.
        let private = tempfile::Builder::new()
            .prefix(".socket-")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(home)?;
        let inside = private.path().join("s");
        let listener = UnixListener::bind(&inside)?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&inside, &path)?;
        Ok(listener)
    };
    made().map_err(|source| ControlError::Socket { path: path.clone(), source })
}

/// Answers until the loop behind `commands` is gone.
///
/// # Errors
///
/// The socket failed.
pub async fn serve(listener: UnixListener, commands: mpsc::Sender<Command>) -> io::Result<()> {
    let gone = commands.clone();
    let router =
        Router::new().route("/v1/status", get(status)).route("/v1/stop", post(stop)).with_state(commands);
    axum::serve(listener, router).with_graceful_shutdown(async move { gone.closed().await }).await
}

async fn status(State(commands): State<mpsc::Sender<Command>>) -> Result<Json<NodeStatus>, StatusCode> {
    let (reply, status) = oneshot::channel();
    commands.send(Command::Status(reply)).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    status.await.map(Json).map_err(|_| StatusCode::SERVICE_UNAVAILABLE)
}

async fn stop(State(commands): State<mpsc::Sender<Command>>) -> StatusCode {
    match commands.send(Command::Stop).await {
        Ok(()) => StatusCode::ACCEPTED,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Asks the node of the store in `home`; gives its answer as JSON, or nothing if it has none.
///
/// # Errors
///
/// [`ControlError`].
pub async fn ask(home: &Path, method: &str, path: &str) -> Result<Option<serde_json::Value>, ControlError> {
    let stream = UnixStream::connect(socket(home)).await;
    let stream = stream.map_err(|source| ControlError::Nobody { home: home.to_owned(), source })?;
    let failed = |error: &dyn std::fmt::Display| ControlError::Answer(error.to_string());
    let exchange = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        let driving = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "node");
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| failed(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let code = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|e| failed(&e))?.to_bytes();
        driving.abort();
        match code {
            _ if !code.is_success() => Err(failed(&code)),
            _ if body.is_empty() => Ok(None),
            _ => serde_json::from_slice(&body).map(Some).map_err(|e| failed(&e)),
        }
    };
    match time::timeout(PATIENCE, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(ControlError::Answer(format!("nothing for {} seconds", PATIENCE.as_secs()))),
    }
}
