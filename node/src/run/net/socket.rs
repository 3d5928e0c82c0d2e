//! One socket of a program: a listener, or a connection that it accepted.
//!
//! A socket here is a socket of this machine, and blocks or does not as the program wishes; what
//! the machine answers, the program gets.

use std::{
    io::IoSlice,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{OFlags, fcntl_getfl},
    io::{Errno as Os, ioctl_fionbio, ioctl_fionread, retry_on_intr},
    net::{
        RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, accept_with, recv, sendmsg,
        shutdown, sockopt::set_tcp_nodelay,
    },
};

use super::Errno;
use crate::build::Mem;

/// Buffers in one scattered read or write (as `IOV_MAX`).
const VECTORS: u32 = 1024;

/// `filetype::socket_stream`.
const SOCKET_STREAM: u8 = 6;

/// `fdflags::nonblock`.
const NONBLOCK: u32 = 4;

/// `riflags`.
const PEEK: u32 = 1;
const WAITALL: u32 = 2;

/// `rights` of either kind: set flags, get attributes, poll.
const RIGHTS: u64 = 1 << 3 | 1 << 21 | 1 << 27;
/// Of a listener: accept. wasi-libc wants one of read and write for a mode of opening.
const RIGHTS_OF_LISTENER: u64 = RIGHTS | 1 << 1 | 1 << 29;
/// Of a connection: read, write, shut down.
const RIGHTS_OF_CONNECTION: u64 = RIGHTS | 1 << 1 | 1 << 6 | 1 << 28;

/// A listener or a connection.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    listens: bool,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    pub(super) fn listener(fd: OwnedFd) -> Self {
        Self { fd, listens: true }
    }

    /// `sock_accept`: the next connection, with the `fdflags` given.
    pub(super) fn accept(&self, flags: u32) -> Result<Self, Errno> {
        let flags = match flags {
            0 => SocketFlags::CLOEXEC,
            NONBLOCK => SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            _ => return Err(Errno::Inval),
        };
        let fd = retry_on_intr(|| accept_with(&self.fd, flags)).map_err(errno)?;
        // Preview 1 has no way to ask for it, and without it every second small write waits for
        // the peer's acknowledgement. It fails only if the peer is gone, which is seen later.
        let _ = set_tcp_nodelay(&fd, true);
        Ok(Self { fd, listens: false })
    }

    /// `fd_read` and `sock_recv`: writes the number of bytes to `to`.
    pub(super) fn receive(
        &self,
        memory: &mut Mem<'_>,
        vectors: u32,
        count: u32,
        flags: u32,
        to: u32,
    ) -> Result<(), Errno> {
        if flags & !(PEEK | WAITALL) != 0 {
            return Err(Errno::Inval);
        }
        let (peek, all) = (flags & PEEK != 0, flags & WAITALL != 0);
        let mut how = RecvFlags::empty();
        how.set(RecvFlags::PEEK, peek);
        how.set(RecvFlags::WAITALL, all);
        memory.slice(to, 4)?;
        let mut received = 0;
        for (at, len) in buffers(memory, vectors, count)? {
            // Once there is something, what else is there is taken but not waited for.
            how.set(RecvFlags::DONTWAIT, received > 0 && !all);
            let buffer = memory.slice_mut(at, len)?;
            match retry_on_intr(|| recv(&self.fd, &mut *buffer, how)) {
                Ok((_, bytes)) => {
                    received += bytes as u32;
                    // A second look would see the same bytes again.
                    if peek || bytes < len as usize {
                        break;
                    }
                }
                Err(_) if received > 0 => break,
                Err(error) => return Err(self::errno(error)),
            }
        }
        memory.put_u32(to, received)
    }

    /// `fd_write` and `sock_send`: writes the number of bytes to `to`.
    pub(super) fn send(
        &self,
        memory: &mut Mem<'_>,
        vectors: u32,
        count: u32,
        flags: u32,
        to: u32,
    ) -> Result<(), Errno> {
        // The standard has a parameter for flags, and no flags.
        if flags != 0 {
            return Err(Errno::Inval);
        }
        memory.slice(to, 4)?;
        let buffers = buffers(memory, vectors, count)?;
        let slices: Result<Vec<_>, _> =
            buffers.into_iter().map(|(at, len)| memory.slice(at, len).map(IoSlice::new)).collect();
        let slices = slices?;
        let mut control = SendAncillaryBuffer::default();
        // A peer that is gone is an error for the program, and not a signal for all of us.
        let mut send = || sendmsg(&self.fd, &slices, &mut control, SendFlags::NOSIGNAL);
        let sent = retry_on_intr(&mut send).map_err(errno)?;
        memory.put_u32(to, sent as u32)
    }

    /// `sock_shutdown`: `how` is `sdflags`.
    pub(super) fn shutdown(&self, how: u32) -> Result<(), Errno> {
        let how = match how {
            1 => Shutdown::Read,
            2 => Shutdown::Write,
            3 => Shutdown::Both,
            _ => return Err(Errno::Inval),
        };
        shutdown(&self.fd, how).map_err(errno)
    }

    /// `fd_fdstat_get`.
    pub(super) fn status(&self, memory: &mut Mem<'_>, to: u32) -> Result<(), Errno> {
        let flags = fcntl_getfl(&self.fd).map_err(errno)?;
        let rights = if self.listens { RIGHTS_OF_LISTENER } else { RIGHTS_OF_CONNECTION };
        let mut bytes = [0; 24];
        bytes[0] = SOCKET_STREAM;
        bytes[2] = if flags.contains(OFlags::NONBLOCK) { NONBLOCK as u8 } else { 0 };
        bytes[8..16].copy_from_slice(&rights.to_le_bytes());
        // What a listener accepts is a connection.
        bytes[16..24].copy_from_slice(&RIGHTS_OF_CONNECTION.to_le_bytes());
        memory.put(to, &bytes)
    }

    /// `fd_fdstat_set_flags`: only whether it blocks can be changed.
    pub(super) fn set_flags(&self, flags: u32) -> Result<(), Errno> {
        if flags & !NONBLOCK != 0 {
            return Err(Errno::Inval);
        }
        ioctl_fionbio(&self.fd, flags != 0).map_err(errno)
    }

    /// `fd_filestat_get`: that it is a socket is all there is to say.
    pub(super) fn attributes(&self, memory: &mut Mem<'_>, to: u32) -> Result<(), Errno> {
        let mut bytes = [0; 64];
        bytes[16] = SOCKET_STREAM;
        memory.put(to, &bytes)
    }

    /// `fd_prestat_get`: a listener is preopened, and no directory.
    pub(super) fn preopened(&self, memory: &mut Mem<'_>, to: u32) -> Result<(), Errno> {
        const NO_DIRECTORY: u8 = 1;
        if !self.listens {
            return Err(Errno::Badf);
        }
        memory.put(to, &[NO_DIRECTORY, 0, 0, 0, 0, 0, 0, 0])
    }

    /// `fd_prestat_dir_name`: of no bytes.
    pub(super) fn preopened_name(&self) -> Result<(), Errno> {
        if self.listens { Ok(()) } else { Err(Errno::Notdir) }
    }

    /// How many bytes can be read at once; a connection that waits to be accepted counts as one.
    pub(super) fn readable(&self) -> u64 {
        if self.listens { 1 } else { ioctl_fionread(&self.fd).unwrap_or(0) }
    }
}

/// The buffers that are not empty: where they are and how long, all of them within the memory.
fn buffers(memory: &Mem<'_>, vectors: u32, count: u32) -> Result<Vec<(u32, u32)>, Errno> {
    if count > VECTORS {
        return Err(Errno::Inval);
    }
    let (mut buffers, mut total) = (vec![], 0u32);
    for n in 0..count {
        let (at, len) = memory.vector(vectors, n)?;
        memory.slice(at, len)?;
        total = total.checked_add(len).ok_or(Errno::Inval)?;
        if len > 0 {
            buffers.push((at, len));
        }
    }
    Ok(buffers)
}

/// What this machine answered, in the standard's numbers.
pub(super) fn errno(error: Os) -> Errno {
    match error {
        Os::AGAIN => Errno::Again,
        Os::CONNABORTED => Errno::Connaborted,
        Os::CONNRESET => Errno::Connreset,
        Os::HOSTUNREACH => Errno::Hostunreach,
        Os::INTR => Errno::Intr,
        Os::INVAL => Errno::Inval,
        Os::MFILE => Errno::Mfile,
        Os::NETDOWN => Errno::Netdown,
        Os::NETUNREACH => Errno::Netunreach,
        Os::NFILE => Errno::Nfile,
        Os::NOBUFS => Errno::Nobufs,
        Os::NOMEM => Errno::Nomem,
        Os::NOTCONN => Errno::Notconn,
        Os::NOTSUP => Errno::Notsup,
        Os::PERM => Errno::Perm,
        Os::PIPE => Errno::Pipe,
        Os::TIMEDOUT => Errno::Timedout,
        _ => Errno::Io,
    }
}
