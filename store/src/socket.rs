//! Sockets for the processes of one user, at paths of any length.

use std::{
    fs::{self, File, Permissions},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::PermissionsExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use crate::disk::{DiskError, Doing as _};

/// Bytes that the path of a socket may have, its NUL included (`sun_path` of Linux; macOS has 104).
const SOCKET_PATH_BYTES: usize = 104;

/// The name of a socket that is listened on; it goes when this is dropped.
#[derive(Debug)]
pub struct SocketName(PathBuf);

impl Drop for SocketName {
    fn drop(&mut self) {
        // If it stays, whoever connects finds nobody.
        let _ = fs::remove_file(&self.0);
    }
}

/// Listens at `path`, for this user alone: there is no instant at which others can connect. A socket
/// that has the name is replaced. The listener does not block.
///
/// # Errors
///
/// [`DiskError`].
pub fn listen(path: &Path) -> Result<(UnixListener, SocketName), DiskError> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut private = tempfile::Builder::new();
    let private = private.prefix(".socket-").permissions(Permissions::from_mode(0o700)).tempdir_in(parent);
    let private = private.doing("create a directory in", parent)?;
    let bound = private.path().join("socket");
    let listener = bind(&bound).doing("create the socket", &bound)?;
    fs::set_permissions(&bound, Permissions::from_mode(0o600)).doing("protect", &bound)?;
    fs::rename(&bound, path).doing("rename to", path)?;
    Ok((listener, SocketName(path.to_owned())))
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let (path, _dir) = reachable(path)?;
    let listener = UnixListener::bind(path)?;
    // A client may be gone before it is accepted.
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to whoever listens at `path`.
///
/// # Errors
///
/// Nobody listens, or the system refuses.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (path, _dir) = reachable(path)?;
    UnixStream::connect(path)
}

/// A path by which a socket can be bound or reached, however long its own is: below the directory,
/// which has to stay open meanwhile.
fn reachable(socket: &Path) -> io::Result<(PathBuf, Option<File>)> {
    if socket.as_os_str().len() < SOCKET_PATH_BYTES {
        return Ok((socket.to_owned(), None));
    }
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(ErrorKind::InvalidFilename.into());
    };
    let dir = File::open(parent)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    Ok((path, Some(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_and_nobody_else() {
        let home = tempfile::tempdir().unwrap();
        for path in [home.path().join("s"), home.path().join("d".repeat(200)).join("s")] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            assert!(connect(&path).is_err());
            for _ in 0..2 {
                let (listener, name) = listen(&path).unwrap();
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
                connect(&path).unwrap();
                listener.accept().unwrap();
                drop(name);
                assert!(connect(&path).is_err() && !path.exists());
            }
            assert_eq!(
                fs::read_dir(path.parent().unwrap())
                    .unwrap()
                    .filter(|e| e.as_ref().unwrap().path().is_file())
                    .count(),
                0
            );
        }
    }
}
