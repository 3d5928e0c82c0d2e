//! The functions of preview 1 that take a descriptor, in front of wasmtime-wasi's.
//!
//! On a socket each does what is said here; on anything else it is passed on, with the number that
//! wasmtime-wasi knows in place of the program's.

use std::convert::identity as at_once;

use wasmtime::{AsContextMut as _, Caller, Extern, Linker};
use wasmtime_wasi::{
    p1::wasi_snapshot_preview1::{self as theirs, WasiSnapshotPreview1 as _},
    runtime::in_tokio,
};
use wiggle::GuestMemory;

use super::{Descriptor, Errno, Guest, poll};
use crate::build::{MODULE, Mem};

/// The program's memory and state, at the beginning of a call.
pub(super) fn enter<'c>(
    caller: &'c mut Caller<'_, Guest>,
) -> wasmtime::Result<(&'c mut [u8], &'c mut Guest)> {
    let fuel = caller.as_context_mut().hostcall_fuel();
    let Some(Extern::Memory(memory)) = caller.get_export("memory") else {
        wasmtime::bail!("the program exports no memory");
    };
    let (bytes, guest) = memory.data_and_store_mut(caller);
    // Bounds what wasmtime-wasi copies in one call, as where it defines its functions itself.
    guest.wasi.set_hostcall_fuel(fuel);
    Ok((bytes, guest))
}

/// A result as the program sees it.
fn answer(result: Result<(), Errno>) -> i32 {
    result.map_or_else(|errno| errno as i32, |()| 0)
}

/// Defines functions: `name(args) [those that are descriptors] socket, memory => what it does on a
/// socket`; `$wait` turns what wasmtime-wasi gives into its result.
macro_rules! define {
    ($linker:ident $wait:ident: $(
        $name:ident($($arg:ident: $type:ty),*) [$($fd:ident)+] $socket:pat_param, $memory:pat_param => $ours:expr;
    )*) => {$(
        $linker.func_wrap(
            MODULE,
            stringify!($name),
            |mut caller: Caller<'_, Guest>, $($arg: $type),*| -> wasmtime::Result<i32> {
                let (bytes, guest) = enter(&mut caller)?;
                $(let $fd = match guest.descriptors.get($fd) {
                    Ok(Descriptor::Theirs(number)) => *number,
                    Ok(Descriptor::Socket($socket)) => {
                        let $memory = &mut Mem::new(bytes);
                        return Ok(answer($ours));
                    }
                    Err(errno) => return Ok(errno as i32),
                };)+
                let mut memory = GuestMemory::Unshared(bytes);
                $wait(theirs::$name(&mut guest.wasi, &mut memory, $($arg as _),*))
            },
        )?;
    )*};
}

/// Defines all functions that take a descriptor.
pub(super) fn define(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    define! { linker in_tokio:
        fd_advise(fd: u32, at: u64, len: u64, advice: u32) [fd] _, _ => Err(Errno::Spipe);
        fd_datasync(fd: u32) [fd] _, _ => Err(Errno::Inval);
        fd_fdstat_get(fd: u32, to: u32) [fd] socket, memory => socket.status(memory, to);
        fd_filestat_get(fd: u32, to: u32) [fd] socket, memory => socket.attributes(memory, to);
        fd_filestat_set_size(fd: u32, size: u64) [fd] _, _ => Err(Errno::Inval);
        fd_filestat_set_times(fd: u32, accessed: u64, modified: u64, flags: u32) [fd]
            _, _ => Err(Errno::Notsup);
        fd_pread(fd: u32, vectors: u32, count: u32, at: u64, to: u32) [fd] _, _ => Err(Errno::Spipe);
        fd_pwrite(fd: u32, vectors: u32, count: u32, at: u64, to: u32) [fd] _, _ => Err(Errno::Spipe);
        fd_read(fd: u32, vectors: u32, count: u32, to: u32) [fd]
            socket, memory => socket.receive(memory, vectors, count, 0, to);
        fd_readdir(fd: u32, buffer: u32, len: u32, cookie: u64, to: u32) [fd] _, _ => Err(Errno::Notdir);
        fd_seek(fd: u32, by: i64, whence: u32, to: u32) [fd] _, _ => Err(Errno::Spipe);
        fd_sync(fd: u32) [fd] _, _ => Err(Errno::Inval);
        fd_write(fd: u32, vectors: u32, count: u32, to: u32) [fd]
            socket, memory => socket.send(memory, vectors, count, 0, to);
        path_create_directory(fd: u32, path: u32, len: u32) [fd] _, _ => Err(Errno::Notdir);
        path_filestat_get(fd: u32, lookup: u32, path: u32, len: u32, to: u32) [fd]
            _, _ => Err(Errno::Notdir);
        path_filestat_set_times(
            fd: u32, lookup: u32, path: u32, len: u32, accessed: u64, modified: u64, flags: u32
        ) [fd] _, _ => Err(Errno::Notdir);
        path_link(fd: u32, lookup: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32)
            [fd new_fd] _, _ => Err(Errno::Notdir);
        path_readlink(fd: u32, path: u32, len: u32, buffer: u32, room: u32, to: u32) [fd]
            _, _ => Err(Errno::Notdir);
        path_remove_directory(fd: u32, path: u32, len: u32) [fd] _, _ => Err(Errno::Notdir);
        path_rename(fd: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32)
            [fd new_fd] _, _ => Err(Errno::Notdir);
        path_symlink(target: u32, target_len: u32, fd: u32, path: u32, len: u32) [fd]
            _, _ => Err(Errno::Notdir);
        path_unlink_file(fd: u32, path: u32, len: u32) [fd] _, _ => Err(Errno::Notdir);
    }
    define! { linker at_once:
        fd_allocate(fd: u32, at: u64, len: u64) [fd] _, _ => Err(Errno::Spipe);
        fd_fdstat_set_flags(fd: u32, flags: u32) [fd] socket, _ => socket.set_flags(flags);
        fd_fdstat_set_rights(fd: u32, rights: u64, inheriting: u64) [fd] _, _ => Err(Errno::Notsup);
        fd_prestat_get(fd: u32, to: u32) [fd] socket, memory => socket.preopened(memory, to);
        fd_prestat_dir_name(fd: u32, to: u32, len: u32) [fd] socket, _ => socket.preopened_name();
        fd_tell(fd: u32, to: u32) [fd] _, _ => Err(Errno::Spipe);
        sock_recv(fd: u32, vectors: u32, count: u32, flags: u32, to: u32, out_flags: u32) [fd]
            // Of a stream nothing is ever cut off, so no flag is set.
            socket, memory => memory
                .put(out_flags, &[0, 0])
                .and_then(|()| socket.receive(memory, vectors, count, flags, to));
        sock_send(fd: u32, vectors: u32, count: u32, flags: u32, to: u32) [fd]
            socket, memory => socket.send(memory, vectors, count, flags, to);
        sock_shutdown(fd: u32, how: u32) [fd] socket, _ => socket.shutdown(how);
    }
    linker.func_wrap(MODULE, "fd_close", |mut caller: Caller<'_, Guest>, fd: u32| {
        let (memory, guest) = enter(&mut caller)?;
        close(guest, memory, fd)
    })?;
    linker.func_wrap(MODULE, "fd_renumber", |mut caller: Caller<'_, Guest>, from: u32, to: u32| {
        let (memory, guest) = enter(&mut caller)?;
        renumber(guest, memory, from, to)
    })?;
    linker.func_wrap(
        MODULE,
        "path_open",
        |mut caller: Caller<'_, Guest>,
         fd: u32,
         lookup: u32,
         path: u32,
         len: u32,
         how: u32,
         rights: u64,
         inheriting: u64,
         flags: u32,
         to: u32|
         -> wasmtime::Result<i32> {
            let (memory, guest) = enter(&mut caller)?;
            let (directory, number) = match guest.descriptors.get(fd) {
                Ok(Descriptor::Theirs(directory)) => (*directory, guest.descriptors.free()),
                Ok(Descriptor::Socket(_)) => return Ok(Errno::Notdir as i32),
                Err(errno) => return Ok(errno as i32),
            };
            let number = match number {
                Ok(number) => number,
                Err(errno) => return Ok(errno as i32),
            };
            let errno = in_tokio(theirs::path_open(
                &mut guest.wasi,
                &mut GuestMemory::Unshared(memory),
                directory as _,
                lookup as _,
                path as _,
                len as _,
                how as _,
                rights as _,
                inheriting as _,
                flags as _,
                to as _,
            ))?;
            if errno != 0 {
                return Ok(errno);
            }
            Ok(answer(opened(guest, &mut Mem::new(memory), number, to)))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "sock_accept",
        |mut caller: Caller<'_, Guest>, fd: u32, flags: u32, to: u32| -> wasmtime::Result<i32> {
            let (memory, guest) = enter(&mut caller)?;
            Ok(answer(accept(guest, &mut Mem::new(memory), fd, flags, to)))
        },
    )?;
    linker.func_wrap(
        MODULE,
        "poll_oneoff",
        |mut caller: Caller<'_, Guest>, subscriptions: u32, events: u32, count: u32, to: u32| {
            let (memory, guest) = enter(&mut caller)?;
            poll::poll_oneoff(guest, &mut Mem::new(memory), subscriptions, events, count, to)
        },
    )?;
    Ok(())
}

fn close(guest: &mut Guest, memory: &mut [u8], fd: u32) -> wasmtime::Result<i32> {
    match guest.descriptors.close(fd) {
        Ok(Descriptor::Socket(_)) => Ok(0),
        Ok(Descriptor::Theirs(number)) => {
            let mut memory = GuestMemory::Unshared(memory);
            in_tokio(theirs::fd_close(&mut guest.wasi, &mut memory, number as _))
        }
        Err(errno) => Ok(errno as i32),
    }
}

/// As in wasmtime-wasi, both numbers must be in use; what was behind `to` is closed.
fn renumber(guest: &mut Guest, memory: &mut [u8], from: u32, to: u32) -> wasmtime::Result<i32> {
    if let Err(errno) = guest.descriptors.get(from).and(guest.descriptors.get(to)) {
        return Ok(errno as i32);
    }
    if from == to {
        return Ok(0);
    }
    let errno = close(guest, memory, to)?;
    if let (0, Ok(descriptor)) = (errno, guest.descriptors.close(from)) {
        guest.descriptors.open(to, descriptor);
    }
    Ok(errno)
}

/// Puts our number in the place of the one that wasmtime-wasi has just written to `to`.
fn opened(guest: &mut Guest, memory: &mut Mem<'_>, number: u32, to: u32) -> Result<(), Errno> {
    guest.descriptors.open(number, Descriptor::Theirs(memory.u32(to)?));
    memory.put_u32(to, number)
}

fn accept(guest: &mut Guest, memory: &mut Mem<'_>, fd: u32, flags: u32, to: u32) -> Result<(), Errno> {
    let Descriptor::Socket(listener) = guest.descriptors.get(fd)? else { return Err(Errno::Notsock) };
    // A connection is not taken from the queue for a program that cannot learn its number.
    memory.slice(to, 4)?;
    let number = guest.descriptors.free()?;
    let connection = listener.accept(flags)?;
    guest.descriptors.open(number, Descriptor::Socket(connection));
    memory.put_u32(to, number)
}
