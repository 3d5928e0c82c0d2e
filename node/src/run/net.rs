//! Network for a program: listening sockets that its user grants, and the connections they accept.
//!
//! ```text
//! --net ─▶ Listener ─▶ descriptors.rs   0 1 2 │ listeners │ directories │ what is opened, accepted
//! guest ─▶ calls.rs ─ whose is it? ─┬▶ socket.rs      ours: sockets of this machine
//!                                   └▶ wasmtime-wasi  everything else, by the number it knows
//!          poll.rs                     waits for both
//! ```
//!
//! WASI preview 1 cannot make a socket: a program can accept on one that is open when it starts,
//! and use what it accepted. So there are no outgoing connections and no datagrams here. The
//! preview 1 of wasmtime-wasi has no sockets at all, hence this layer in front of it, which is
//! there only if a listener is granted.
//!
//! **Which numbers.** Listeners come first, from 3, in the order they are granted; that is what
//! `LISTEN_FDS` says (systemd's convention, wasmtime's `--tcplisten`) and what servers for preview 1
//! have written into them. Directories follow. A libc finds those by asking `fd_prestat_get` for 3,
//! 4, … until `EBADF`: an `EBADF` for a listener would hide the directories behind it, and any
//! other error makes wasi-libc exit. So a listener answers that it is preopened, but with a tag
//! that is no directory's; wasi-libc and Go go on to the next. Those that do not look at the tag
//! (Zig) see a name of no bytes.
//!
//! wasmtime-wasi hands out numbers without knowing of ours, so the guest's numbers are our own, the
//! lowest that is free, and are translated on the way.

mod calls;
mod descriptors;
mod poll;
mod socket;

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use wasmtime::{Caller, Linker};
use wasmtime_wasi::p1::{WasiP1Ctx, wasi_snapshot_preview1 as theirs};
use wiggle::GuestMemory;

use crate::build::{Errno, MODULE};
use descriptors::{Descriptor, Descriptors};

/// A listening TCP socket for a program.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// What this machine says.
    #[source]
    pub source: io::Error,
}

impl Listener {
    /// Listens on an address; port 0 is any that is free.
    ///
    /// # Errors
    ///
    /// [`ListenError`]: the port is taken, or reserved, or the address is not of this machine.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let listen = || {
            let socket = TcpListener::bind(address)?;
            let address = socket.local_addr()?;
            Ok(Self { socket, address })
        };
        listen().map_err(|source| ListenError { address, source })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The variables that tell a program of its listeners: how many, from descriptor 3 on, and a name
/// for each with its port, since preview 1 cannot ask a socket for its address.
pub(super) fn variables(listeners: &[Listener]) -> Vec<(String, String)> {
    if listeners.is_empty() {
        return vec![];
    }
    let names: Vec<_> = listeners.iter().map(|l| format!("tcp-{}", l.address.port())).collect();
    vec![("LISTEN_FDS".into(), listeners.len().to_string()), ("LISTEN_FDNAMES".into(), names.join(":"))]
}

/// The state of a program.
pub(super) struct Guest {
    wasi: WasiP1Ctx,
    descriptors: Descriptors,
    /// Told once that the program asks for a network and has none.
    refused: Option<Box<dyn FnOnce() + Send>>,
}

impl Guest {
    /// `wasi` has stdio and so many directories open, and nothing else.
    pub(super) fn new(
        wasi: WasiP1Ctx,
        listeners: Vec<Listener>,
        directories: usize,
        refused: impl FnOnce() + Send + 'static,
    ) -> Self {
        let sockets = listeners.into_iter().map(|listener| listener.socket.into());
        let descriptors = Descriptors::new(sockets, directories);
        Self { wasi, descriptors, refused: Some(Box::new(refused)) }
    }
}

/// Defines what a program may import: wasmtime-wasi's functions, and ours in their place if it has
/// a `network`. Without one, `sock_accept` still fails as wasmtime-wasi lets it, and tells of it.
pub(super) fn define(linker: &mut Linker<Guest>, network: bool) -> wasmtime::Result<()> {
    wasmtime_wasi::p1::add_to_linker_sync(linker, |guest| &mut guest.wasi)?;
    linker.allow_shadowing(true);
    if network {
        return calls::define(linker);
    }
    let refuse = |mut caller: Caller<'_, Guest>, fd: u32, flags: u32, to: u32| {
        let (memory, guest) = calls::enter(&mut caller)?;
        if let Some(refused) = guest.refused.take() {
            refused();
        }
        theirs::sock_accept(&mut guest.wasi, &mut GuestMemory::Unshared(memory), fd as _, flags as _, to as _)
    };
    linker.func_wrap(MODULE, "sock_accept", refuse)?;
    Ok(())
}
