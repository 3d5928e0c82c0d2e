//! WASI preview 1 for a build (SPEC §7.3): the 46 functions over [`Vfs`], a clock that moves only
//! when it is read, and random numbers that the action decides.
//!
//! Every function takes the guest's state and its memory and is ordinary synchronous code: results
//! depend on the arguments and on what the guest did before, on nothing else.

use wasmtime::{Caller, Linker, Memory};

use super::{
    errno::{Abort, Errno, Stop},
    limits::Limiter,
    vfs::{FileType, Id, ROOT, Stat, Vfs},
};

/// The only module a guest may import from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// The virtual clock starts a second after the time of all inputs, so that what a build makes is
/// newer than what it is made from.
pub(crate) const EPOCH: u64 = 1_000_000_000_000_000_000;

/// Nanoseconds that the clock moves for each reading.
const TICK: u64 = 1000;

/// Descriptors open at once.
const DESCRIPTORS: usize = 65_536;

/// Buffers in one scattered read or write (as `IOV_MAX`).
const VECTORS: u32 = 1024;

/// Events in one `poll_oneoff`.
const SUBSCRIPTIONS: u32 = 65_536;

const RIGHT_READ: u64 = 1 << 1;
const RIGHT_WRITE: u64 = 1 << 6;
const RIGHTS: u64 = (1 << 30) - 1;
const RIGHTS_OF_LOG: u64 = RIGHT_WRITE | 1 << 21 | 1 << 27;

const FLAG_APPEND: u16 = 1;
const FLAGS: u16 = 0b1_1111;

type Result<T, E = Stop> = std::result::Result<T, E>;

/// Ends a guest: how, by its own doing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("exit {0}")]
    Exit(u32),
    #[error("signal {0}")]
    Signal(u8),
    #[error("{0}")]
    Abort(Abort),
}

/// Takes the log of a build.
pub(crate) trait Log {
    /// Appends to the log.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Abort>;
}

enum Target {
    Log,
    Node { id: Id, at: u64 },
}

struct Descriptor {
    target: Target,
    /// The name under which a preopened directory shows itself.
    preopen: Option<String>,
    flags: u16,
    rights: u64,
    inheriting: u64,
    /// Where the latest `fd_readdir` ended: its cookie and the entry before it.
    listed: Option<(u64, Box<[u8]>)>,
}

impl Descriptor {
    fn node(id: Id, rights: u64) -> Self {
        let target = Target::Node { id, at: 0 };
        Self { target, preopen: None, flags: 0, rights, inheriting: RIGHTS, listed: None }
    }

    fn log() -> Self {
        let (target, rights) = (Target::Log, RIGHTS_OF_LOG);
        Self { target, preopen: None, flags: FLAG_APPEND, rights, inheriting: 0, listed: None }
    }
}

/// What lives as long as the build, across its steps.
pub(crate) struct World {
    pub(crate) vfs: Vfs,
    pub(crate) log: Box<dyn Log + Send>,
    elapsed: u64,
    random: blake3::OutputReader,
}

impl World {
    /// `seed` is the input hash, from which all random numbers come.
    pub(crate) fn new(vfs: Vfs, log: Box<dyn Log + Send>, seed: &[u8; 32]) -> Self {
        let random = blake3::Hasher::new_derive_key("assize 2026-11 random").update(seed).finalize_xof();
        Self { vfs, log, elapsed: 1_000_000_000, random }
    }

    /// The time, which no reading moved.
    pub(crate) fn now(&self) -> u64 {
        EPOCH + self.elapsed
    }
}

/// What a step's guest starts with.
pub(crate) struct Start {
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// A file of the world, held for this step.
    pub(crate) stdin: Id,
    /// A file of the world, held for this step; the log if none.
    pub(crate) stdout: Option<Id>,
    /// Directories and the names they are preopened by.
    pub(crate) preopens: Vec<(Id, String)>,
}

/// The state of one guest: a step of a build.
pub(crate) struct Guest {
    pub(crate) world: World,
    pub(crate) limiter: Limiter,
    pub(crate) memory: Option<Memory>,
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
    descriptors: Vec<Option<Descriptor>>,
}

impl Guest {
    pub(crate) fn new(mut world: World, limiter: Limiter, start: Start) -> Self {
        let string = |text: String| [text.as_bytes(), b"\0"].concat();
        let stdout = start.stdout.map_or_else(Descriptor::log, |id| Descriptor::node(id, RIGHTS));
        let mut descriptors = vec![
            Some(Descriptor::node(start.stdin, RIGHTS & !RIGHT_WRITE)),
            Some(stdout),
            Some(Descriptor::log()),
        ];
        for (id, name) in start.preopens {
            world.vfs.hold(id);
            descriptors.push(Some(Descriptor { preopen: Some(name), ..Descriptor::node(id, RIGHTS) }));
        }
        Self {
            world,
            limiter,
            memory: None,
            args: start.args.into_iter().map(string).collect(),
            env: start.env.into_iter().map(|(k, v)| string(format!("{k}={v}"))).collect(),
            descriptors,
        }
    }

    /// Closes every descriptor and gives back what the next step goes on with.
    pub(crate) fn into_world(mut self) -> World {
        for descriptor in std::mem::take(&mut self.descriptors).into_iter().flatten() {
            self.forget(&descriptor);
        }
        self.world
    }

    fn forget(&mut self, descriptor: &Descriptor) {
        if let Target::Node { id, .. } = descriptor.target {
            self.world.vfs.release(id);
        }
    }

    fn descriptor(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        self.descriptors.get_mut(fd as usize).and_then(Option::as_mut).ok_or(Errno::Badf)
    }

    fn node(&mut self, fd: u32) -> Result<Id, Errno> {
        match self.descriptor(fd)?.target {
            Target::Node { id, .. } => Ok(id),
            Target::Log => Err(Errno::Inval),
        }
    }

    fn directory(&mut self, fd: u32) -> Result<Id, Errno> {
        let Target::Node { id, .. } = self.descriptor(fd)?.target else { return Err(Errno::Notdir) };
        match self.world.vfs.file_type(id) {
            FileType::Directory => Ok(id),
            _ => Err(Errno::Notdir),
        }
    }

    /// A file that may be read (or written) at an offset, and where its descriptor stands.
    fn file(&mut self, fd: u32, right: u64) -> Result<(Id, u64), Errno> {
        let descriptor = self.descriptor(fd)?;
        let Target::Node { id, at } = descriptor.target else { return Err(Errno::Spipe) };
        if right != 0 && descriptor.rights & right == 0 {
            return Err(Errno::Badf);
        }
        match self.world.vfs.file_type(id) {
            FileType::Directory => Err(Errno::Isdir),
            _ => Ok((id, at)),
        }
    }

    fn set_offset(&mut self, fd: u32, to: u64) {
        if let Ok(Descriptor { target: Target::Node { at, .. }, .. }) = self.descriptor(fd) {
            *at = to;
        }
    }

    fn open(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let free = self.descriptors.iter().position(Option::is_none);
        let fd = free.unwrap_or(self.descriptors.len());
        if fd >= DESCRIPTORS {
            return Err(Errno::Mfile);
        }
        if let Target::Node { id, .. } = descriptor.target {
            self.world.vfs.hold(id);
        }
        if fd == self.descriptors.len() {
            self.descriptors.push(None);
        }
        self.descriptors[fd] = Some(descriptor);
        Ok(fd as u32)
    }

    fn read_clock(&mut self, clock: u32) -> Result<u64, Errno> {
        self.world.elapsed += TICK;
        match clock {
            0 => Ok(self.world.now()),
            1..=3 => Ok(self.world.elapsed),
            _ => Err(Errno::Inval),
        }
    }
}

/// The guest's memory; a pointer outside of it is [`Errno::Fault`].
struct Mem<'m>(&'m mut [u8]);

impl Mem<'_> {
    fn slice(&self, at: u32, len: u32) -> Result<&[u8], Errno> {
        let range = at as usize..at as usize + len as usize;
        self.0.get(range).ok_or(Errno::Fault)
    }

    fn slice_mut(&mut self, at: u32, len: u32) -> Result<&mut [u8], Errno> {
        let range = at as usize..at as usize + len as usize;
        self.0.get_mut(range).ok_or(Errno::Fault)
    }

    fn put(&mut self, at: u32, bytes: &[u8]) -> Result<(), Errno> {
        self.slice_mut(at, bytes.len() as u32)?.copy_from_slice(bytes);
        Ok(())
    }

    fn u32(&self, at: u32) -> Result<u32, Errno> {
        let bytes = self.slice(at, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn u64(&self, at: u32) -> Result<u64, Errno> {
        Ok(u64::from(self.u32(at)?) | u64::from(self.u32(at.wrapping_add(4))?) << 32)
    }

    fn put_u32(&mut self, at: u32, value: u32) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    fn put_u64(&mut self, at: u32, value: u64) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    /// The `n`th of the buffers listed at `at`: where it is and how long.
    fn vector(&self, at: u32, n: u32) -> Result<(u32, u32), Errno> {
        let at = at.checked_add(n * 8).ok_or(Errno::Fault)?;
        Ok((self.u32(at)?, self.u32(at.wrapping_add(4))?))
    }

    fn put_stat(&mut self, at: u32, stat: &Stat) -> Result<(), Errno> {
        let mut bytes = [0; 64];
        let fields = [
            (0, 1),
            (8, stat.inode),
            (16, stat.file_type as u64),
            (24, stat.links),
            (32, stat.size),
            (40, stat.times.accessed),
            (48, stat.times.modified),
            (56, stat.times.changed),
        ];
        for (offset, value) in fields {
            bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        }
        self.put(at, &bytes)
    }

    /// Writes `strings` one behind the other from `data`, and their addresses from `table`.
    fn put_strings(&mut self, table: u32, mut data: u32, strings: &[Vec<u8>]) -> Result<(), Errno> {
        for (n, string) in strings.iter().enumerate() {
            self.put_u32(table.wrapping_add(n as u32 * 4), data)?;
            self.put(data, string)?;
            data = data.wrapping_add(string.len() as u32);
        }
        Ok(())
    }
}

/// Defines the 46 functions; each `name(args)` is [`calls`]`::name(guest, memory, args)`.
macro_rules! define {
    ($linker:ident: $($name:ident($($arg:ident: $type:ty),*);)*) => {
        /// The functions a guest may import from [`MODULE`].
        pub(crate) const FUNCTIONS: &[&str] = &["proc_exit", "proc_raise", $(stringify!($name)),*];

        /// Defines what guests may import.
        pub(crate) fn define($linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
            $linker.func_wrap(MODULE, "proc_exit", |code: u32| -> wasmtime::Result<()> {
                Err(End::Exit(code).into())
            })?;
            $linker.func_wrap(MODULE, "proc_raise", |signal: u32| -> wasmtime::Result<u32> {
                match signal {
                    0 => Ok(0),
                    1..=30 => Err(End::Signal(signal as u8).into()),
                    _ => Ok(Errno::Inval as u32),
                }
            })?;
            $($linker.func_wrap(
                MODULE,
                stringify!($name),
                |mut caller: Caller<'_, Guest>, $($arg: $type),*| -> wasmtime::Result<u32> {
                    let known = caller.data().memory;
                    // Only a start function calls before the memory is known.
                    let found = || caller.get_export("memory").and_then(wasmtime::Extern::into_memory);
                    let Some(memory) = known.or_else(found) else { return Ok(Errno::Fault as u32) };
                    let (bytes, guest) = memory.data_and_store_mut(&mut caller);
                    match calls::$name(guest, &mut Mem(bytes), $($arg),*) {
                        Ok(()) => Ok(0),
                        Err(Stop::Errno(errno)) => Ok(errno as u32),
                        Err(Stop::Abort(abort)) => Err(End::Abort(abort).into()),
                    }
                },
            )?;)*
            Ok(())
        }
    };
}

define! { linker:
    args_get(table: u32, data: u32);
    args_sizes_get(count: u32, bytes: u32);
    environ_get(table: u32, data: u32);
    environ_sizes_get(count: u32, bytes: u32);
    clock_res_get(clock: u32, to: u32);
    clock_time_get(clock: u32, precision: u64, to: u32);
    fd_advise(fd: u32, at: u64, len: u64, advice: u32);
    fd_allocate(fd: u32, at: u64, len: u64);
    fd_close(fd: u32);
    fd_datasync(fd: u32);
    fd_fdstat_get(fd: u32, to: u32);
    fd_fdstat_set_flags(fd: u32, flags: u32);
    fd_fdstat_set_rights(fd: u32, rights: u64, inheriting: u64);
    fd_filestat_get(fd: u32, to: u32);
    fd_filestat_set_size(fd: u32, size: u64);
    fd_filestat_set_times(fd: u32, accessed: u64, modified: u64, flags: u32);
    fd_pread(fd: u32, vectors: u32, count: u32, at: u64, to: u32);
    fd_prestat_get(fd: u32, to: u32);
    fd_prestat_dir_name(fd: u32, to: u32, len: u32);
    fd_pwrite(fd: u32, vectors: u32, count: u32, at: u64, to: u32);
    fd_read(fd: u32, vectors: u32, count: u32, to: u32);
    fd_readdir(fd: u32, buffer: u32, len: u32, cookie: u64, to: u32);
    fd_renumber(from: u32, to: u32);
    fd_seek(fd: u32, by: i64, whence: u32, to: u32);
    fd_sync(fd: u32);
    fd_tell(fd: u32, to: u32);
    fd_write(fd: u32, vectors: u32, count: u32, to: u32);
    path_create_directory(fd: u32, path: u32, len: u32);
    path_filestat_get(fd: u32, lookup: u32, path: u32, len: u32, to: u32);
    path_filestat_set_times(fd: u32, lookup: u32, path: u32, len: u32, accessed: u64, modified: u64, flags: u32);
    path_link(fd: u32, lookup: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32);
    path_open(fd: u32, lookup: u32, path: u32, len: u32, how: u32, rights: u64, inheriting: u64, flags: u32, to: u32);
    path_readlink(fd: u32, path: u32, len: u32, buffer: u32, room: u32, to: u32);
    path_remove_directory(fd: u32, path: u32, len: u32);
    path_rename(fd: u32, path: u32, len: u32, new_fd: u32, new_path: u32, new_len: u32);
    path_symlink(target: u32, target_len: u32, fd: u32, path: u32, len: u32);
    path_unlink_file(fd: u32, path: u32, len: u32);
    poll_oneoff(subscriptions: u32, events: u32, count: u32, to: u32);
    sched_yield();
    random_get(to: u32, len: u32);
    sock_accept(fd: u32, flags: u32, to: u32);
    sock_recv(fd: u32, vectors: u32, count: u32, flags: u32, to: u32, out_flags: u32);
    sock_send(fd: u32, vectors: u32, count: u32, flags: u32, to: u32);
    sock_shutdown(fd: u32, how: u32);
}

/// The functions themselves, named and ordered as in the standard.
#[allow(clippy::too_many_arguments, reason = "the signatures are the standard's")]
mod calls {
    use super::*;

    const FOLLOW: u32 = 1;

    fn sizes(m: &mut Mem<'_>, strings: &[Vec<u8>], count: u32, bytes: u32) -> Result<()> {
        m.put_u32(count, strings.len() as u32)?;
        m.put_u32(bytes, strings.iter().map(Vec::len).sum::<usize>() as u32)?;
        Ok(())
    }

    pub(super) fn args_get(g: &mut Guest, m: &mut Mem<'_>, table: u32, data: u32) -> Result<()> {
        Ok(m.put_strings(table, data, &g.args)?)
    }

    pub(super) fn args_sizes_get(g: &mut Guest, m: &mut Mem<'_>, count: u32, bytes: u32) -> Result<()> {
        sizes(m, &g.args, count, bytes)
    }

    pub(super) fn environ_get(g: &mut Guest, m: &mut Mem<'_>, table: u32, data: u32) -> Result<()> {
        Ok(m.put_strings(table, data, &g.env)?)
    }

    pub(super) fn environ_sizes_get(g: &mut Guest, m: &mut Mem<'_>, count: u32, bytes: u32) -> Result<()> {
        sizes(m, &g.env, count, bytes)
    }

    pub(super) fn clock_res_get(_: &mut Guest, m: &mut Mem<'_>, clock: u32, to: u32) -> Result<()> {
        if clock > 3 {
            return Err(Errno::Inval.into());
        }
        Ok(m.put_u64(to, TICK)?)
    }

    pub(super) fn clock_time_get(
        g: &mut Guest,
        m: &mut Mem<'_>,
        clock: u32,
        _precision: u64,
        to: u32,
    ) -> Result<()> {
        let now = g.read_clock(clock)?;
        Ok(m.put_u64(to, now)?)
    }

    pub(super) fn fd_advise(
        g: &mut Guest,
        _: &mut Mem<'_>,
        fd: u32,
        at: u64,
        len: u64,
        advice: u32,
    ) -> Result<()> {
        g.file(fd, 0)?;
        if advice > 5 || at.checked_add(len).is_none() {
            return Err(Errno::Inval.into());
        }
        Ok(())
    }

    pub(super) fn fd_allocate(g: &mut Guest, _: &mut Mem<'_>, fd: u32, at: u64, len: u64) -> Result<()> {
        let (id, _) = g.file(fd, RIGHT_WRITE)?;
        let end = at.checked_add(len).filter(|_| len > 0).ok_or(Errno::Inval)?;
        if end > g.world.vfs.len(id) {
            let now = g.world.now();
            g.world.vfs.resize(id, end, now)?;
        }
        Ok(())
    }

    pub(super) fn fd_close(g: &mut Guest, _: &mut Mem<'_>, fd: u32) -> Result<()> {
        let slot = g.descriptors.get_mut(fd as usize).ok_or(Errno::Badf)?;
        let descriptor = slot.take().ok_or(Errno::Badf)?;
        g.forget(&descriptor);
        Ok(())
    }

    pub(super) fn fd_datasync(g: &mut Guest, _: &mut Mem<'_>, fd: u32) -> Result<()> {
        g.node(fd)?;
        Ok(())
    }

    pub(super) fn fd_fdstat_get(g: &mut Guest, m: &mut Mem<'_>, fd: u32, to: u32) -> Result<()> {
        let Descriptor { target, flags, rights, inheriting, .. } = g.descriptor(fd)?;
        let (flags, rights, inheriting) = (*flags, *rights, *inheriting);
        let file_type = match *target {
            // Not a character device: nothing here is a terminal, and programs must not think so.
            Target::Log => FileType::Unknown,
            Target::Node { id, .. } => g.world.vfs.file_type(id),
        };
        let mut bytes = [0; 24];
        bytes[0] = file_type as u8;
        bytes[2..4].copy_from_slice(&flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&rights.to_le_bytes());
        bytes[16..24].copy_from_slice(&inheriting.to_le_bytes());
        Ok(m.put(to, &bytes)?)
    }

    pub(super) fn fd_fdstat_set_flags(g: &mut Guest, _: &mut Mem<'_>, fd: u32, flags: u32) -> Result<()> {
        let descriptor = g.descriptor(fd)?;
        if flags & !u32::from(FLAGS) != 0 {
            return Err(Errno::Inval.into());
        }
        descriptor.flags = flags as u16;
        Ok(())
    }

    pub(super) fn fd_fdstat_set_rights(
        g: &mut Guest,
        _: &mut Mem<'_>,
        fd: u32,
        rights: u64,
        inheriting: u64,
    ) -> Result<()> {
        let descriptor = g.descriptor(fd)?;
        if rights & !descriptor.rights != 0 || inheriting & !descriptor.inheriting != 0 {
            return Err(Errno::Notcapable.into());
        }
        (descriptor.rights, descriptor.inheriting) = (rights, inheriting);
        Ok(())
    }

    pub(super) fn fd_filestat_get(g: &mut Guest, m: &mut Mem<'_>, fd: u32, to: u32) -> Result<()> {
        let stat = match g.descriptor(fd)?.target {
            Target::Node { id, .. } => g.world.vfs.stat(id),
            Target::Log => Stat {
                inode: 0,
                file_type: FileType::Unknown,
                links: 1,
                size: 0,
                times: super::super::vfs::Times::all(EPOCH),
            },
        };
        Ok(m.put_stat(to, &stat)?)
    }

    pub(super) fn fd_filestat_set_size(g: &mut Guest, _: &mut Mem<'_>, fd: u32, size: u64) -> Result<()> {
        let (id, _) = g.file(fd, RIGHT_WRITE)?;
        let now = g.world.now();
        g.world.vfs.resize(id, size, now)
    }

    /// The times that `flags` asks to set: accessed and modified.
    fn times(g: &Guest, accessed: u64, modified: u64, flags: u32) -> Result<(Option<u64>, Option<u64>)> {
        let choose = |set: u32, now: u32, value: u64| match (flags & set != 0, flags & now != 0) {
            (true, true) => Err(Errno::Inval),
            (true, false) => Ok(Some(value)),
            (false, true) => Ok(Some(g.world.now())),
            (false, false) => Ok(None),
        };
        if flags > 15 {
            return Err(Errno::Inval.into());
        }
        Ok((choose(1, 2, accessed)?, choose(4, 8, modified)?))
    }

    pub(super) fn fd_filestat_set_times(
        g: &mut Guest,
        _: &mut Mem<'_>,
        fd: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Result<()> {
        let id = g.node(fd)?;
        let (accessed, modified) = times(g, accessed, modified, flags)?;
        let now = g.world.now();
        g.world.vfs.set_times(id, accessed, modified, now)
    }

    /// Reads into the buffers from `at` on; stops at the end of the file.
    fn read(g: &Guest, m: &mut Mem<'_>, id: Id, vectors: u32, count: u32, at: u64) -> Result<u32> {
        if count > VECTORS {
            return Err(Errno::Inval.into());
        }
        let mut done = 0u32;
        for n in 0..count {
            let (to, len) = m.vector(vectors, n)?;
            let buffer = m.slice_mut(to, len)?;
            let got = g.world.vfs.read(id, at.saturating_add(u64::from(done)), buffer)? as u32;
            done = done.checked_add(got).ok_or(Errno::Inval)?;
            if got < len {
                break;
            }
        }
        Ok(done)
    }

    /// Writes the buffers from `at` on.
    fn write(g: &mut Guest, m: &Mem<'_>, id: Id, vectors: u32, count: u32, at: u64) -> Result<u32> {
        if count > VECTORS {
            return Err(Errno::Inval.into());
        }
        let now = g.world.now();
        let mut done = 0u32;
        for n in 0..count {
            let (from, len) = m.vector(vectors, n)?;
            let after = done.checked_add(len).ok_or(Errno::Inval)?;
            let bytes = m.slice(from, len)?;
            g.world.vfs.write(id, at.saturating_add(u64::from(done)), bytes, now)?;
            done = after;
        }
        Ok(done)
    }

    pub(super) fn fd_pread(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        vectors: u32,
        count: u32,
        at: u64,
        to: u32,
    ) -> Result<()> {
        let (id, _) = g.file(fd, RIGHT_READ)?;
        let done = read(g, m, id, vectors, count, at)?;
        Ok(m.put_u32(to, done)?)
    }

    fn preopen(g: &mut Guest, fd: u32) -> Result<String, Errno> {
        g.descriptor(fd)?.preopen.clone().ok_or(Errno::Badf)
    }

    pub(super) fn fd_prestat_get(g: &mut Guest, m: &mut Mem<'_>, fd: u32, to: u32) -> Result<()> {
        let name = preopen(g, fd)?;
        m.put_u32(to, 0)?;
        Ok(m.put_u32(to.wrapping_add(4), name.len() as u32)?)
    }

    pub(super) fn fd_prestat_dir_name(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        to: u32,
        len: u32,
    ) -> Result<()> {
        let name = preopen(g, fd)?;
        if name.len() > len as usize {
            return Err(Errno::Nametoolong.into());
        }
        Ok(m.put(to, name.as_bytes())?)
    }

    pub(super) fn fd_pwrite(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        vectors: u32,
        count: u32,
        at: u64,
        to: u32,
    ) -> Result<()> {
        let (id, _) = g.file(fd, RIGHT_WRITE)?;
        let done = write(g, m, id, vectors, count, at)?;
        Ok(m.put_u32(to, done)?)
    }

    pub(super) fn fd_read(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        vectors: u32,
        count: u32,
        to: u32,
    ) -> Result<()> {
        if matches!(g.descriptor(fd)?.target, Target::Log) {
            return Err(Errno::Badf.into());
        }
        let (id, at) = g.file(fd, RIGHT_READ)?;
        let done = read(g, m, id, vectors, count, at)?;
        g.set_offset(fd, at + u64::from(done));
        Ok(m.put_u32(to, done)?)
    }

    pub(super) fn fd_readdir(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        buffer: u32,
        len: u32,
        cookie: u64,
        to: u32,
    ) -> Result<()> {
        let id = g.directory(fd)?;
        let listed = g.descriptor(fd)?.listed.take();
        let room = m.slice_mut(buffer, len)?;
        let vfs = &g.world.vfs;
        // `.` and `..` have the cookies 0 and 1; the entries that were listed last need no search.
        let (after, skip) = match &listed {
            Some((at, name)) if *at == cookie => (Some(&**name), 0),
            _ => (None, cookie.saturating_sub(2)),
        };
        let (this, parent) = vfs.dots(id);
        let dots = [(b".".as_slice(), this), (b"..".as_slice(), parent)];
        let dots = dots.into_iter().map(|(name, inode)| (name, inode, FileType::Directory));
        let entries = vfs.entries(id, after).skip(usize::try_from(skip).unwrap_or(usize::MAX));
        let entries = entries.map(|(name, id)| {
            let stat = vfs.stat(id);
            (name, stat.inode, stat.file_type)
        });
        let mut used = 0;
        let mut last = None;
        for (next, (name, inode, file_type)) in
            (cookie.saturating_add(1)..).zip(dots.skip(cookie.min(2) as usize).chain(entries))
        {
            let mut entry = Vec::with_capacity(24 + name.len());
            entry.extend_from_slice(&next.to_le_bytes());
            entry.extend_from_slice(&inode.to_le_bytes());
            entry.extend_from_slice(&(name.len() as u32).to_le_bytes());
            entry.extend_from_slice(&[file_type as u8, 0, 0, 0]);
            entry.extend_from_slice(name);
            let fits = entry.len().min(room.len() - used);
            room[used..used + fits].copy_from_slice(&entry[..fits]);
            used += fits;
            if fits < entry.len() {
                break;
            }
            if next > 2 {
                last = Some((next, name));
            }
            if used == room.len() {
                break;
            }
        }
        let last = last.map(|(next, name)| (next, name.into())).or(listed);
        g.descriptor(fd)?.listed = last;
        Ok(m.put_u32(to, used as u32)?)
    }

    pub(super) fn fd_renumber(g: &mut Guest, _: &mut Mem<'_>, from: u32, to: u32) -> Result<()> {
        g.descriptor(from)?;
        g.descriptor(to)?;
        if from != to {
            let moved = g.descriptors[from as usize].take();
            if let Some(old) = std::mem::replace(&mut g.descriptors[to as usize], moved) {
                g.forget(&old);
            }
        }
        Ok(())
    }

    pub(super) fn fd_seek(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        by: i64,
        whence: u32,
        to: u32,
    ) -> Result<()> {
        let (id, at) = g.file(fd, 0)?;
        let from = match whence {
            0 => 0,
            1 => at,
            2 => g.world.vfs.len(id),
            _ => return Err(Errno::Inval.into()),
        };
        let at = from.checked_add_signed(by).filter(|at| *at <= i64::MAX as u64);
        let at = at.ok_or(Errno::Inval)?;
        g.set_offset(fd, at);
        Ok(m.put_u64(to, at)?)
    }

    pub(super) fn fd_sync(g: &mut Guest, m: &mut Mem<'_>, fd: u32) -> Result<()> {
        fd_datasync(g, m, fd)
    }

    pub(super) fn fd_tell(g: &mut Guest, m: &mut Mem<'_>, fd: u32, to: u32) -> Result<()> {
        let (_, at) = g.file(fd, 0)?;
        Ok(m.put_u64(to, at)?)
    }

    pub(super) fn fd_write(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        vectors: u32,
        count: u32,
        to: u32,
    ) -> Result<()> {
        if matches!(g.descriptor(fd)?.target, Target::Log) {
            let done = write_log(g, m, vectors, count)?;
            return Ok(m.put_u32(to, done)?);
        }
        let (id, mut at) = g.file(fd, RIGHT_WRITE)?;
        if g.descriptor(fd)?.flags & FLAG_APPEND != 0 {
            at = g.world.vfs.len(id);
        }
        let done = write(g, m, id, vectors, count, at)?;
        g.set_offset(fd, at + u64::from(done));
        Ok(m.put_u32(to, done)?)
    }

    fn write_log(g: &mut Guest, m: &Mem<'_>, vectors: u32, count: u32) -> Result<u32> {
        if count > VECTORS {
            return Err(Errno::Inval.into());
        }
        let mut done = 0u32;
        for n in 0..count {
            let (from, len) = m.vector(vectors, n)?;
            let bytes = m.slice(from, len)?;
            done = done.checked_add(len).ok_or(Errno::Inval)?;
            g.world.log.write(bytes)?;
        }
        Ok(done)
    }

    /// A path in the guest's memory and the directory that it starts from.
    fn path<'m>(
        g: &mut Guest,
        m: &'m Mem<'_>,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Result<(Id, &'m [u8]), Errno> {
        Ok((g.directory(fd)?, m.slice(path, len)?))
    }

    pub(super) fn path_create_directory(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Result<()> {
        let (base, path) = self::path(g, m, fd, path, len)?;
        let (place, now) = (g.world.vfs.place(base, path)?, g.world.now());
        g.world.vfs.make_directory(&place, now).map(drop)
    }

    pub(super) fn path_filestat_get(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
        to: u32,
    ) -> Result<()> {
        let (base, path) = self::path(g, m, fd, path, len)?;
        let id = g.world.vfs.find(base, path, lookup & FOLLOW != 0)?;
        Ok(m.put_stat(to, &g.world.vfs.stat(id))?)
    }

    pub(super) fn path_filestat_set_times(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
        accessed: u64,
        modified: u64,
        flags: u32,
    ) -> Result<()> {
        let (base, path) = self::path(g, m, fd, path, len)?;
        let id = g.world.vfs.find(base, path, lookup & FOLLOW != 0)?;
        let (accessed, modified) = times(g, accessed, modified, flags)?;
        let now = g.world.now();
        g.world.vfs.set_times(id, accessed, modified, now)
    }

    pub(super) fn path_link(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
        new_fd: u32,
        new_path: u32,
        new_len: u32,
    ) -> Result<()> {
        let (base, path) = self::path(g, m, fd, path, len)?;
        let id = g.world.vfs.find(base, path, lookup & FOLLOW != 0)?;
        let (base, path) = self::path(g, m, new_fd, new_path, new_len)?;
        let (place, now) = (g.world.vfs.place(base, path)?, g.world.now());
        g.world.vfs.link(id, &place, now)
    }

    pub(super) fn path_open(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        lookup: u32,
        path: u32,
        len: u32,
        how: u32,
        rights: u64,
        inheriting: u64,
        flags: u32,
        to: u32,
    ) -> Result<()> {
        const CREATE: u32 = 1;
        const DIRECTORY: u32 = 2;
        const EXCLUSIVE: u32 = 4;
        const TRUNCATE: u32 = 8;
        let granted = g.descriptor(fd)?.inheriting;
        let (base, path) = self::path(g, m, fd, path, len)?;
        let set = |bit| how & bit != 0;
        if how > 15 || flags > u32::from(FLAGS) || (set(CREATE) && set(DIRECTORY)) {
            return Err(Errno::Inval.into());
        }
        // `O_EXCL` looks at the name itself, whatever it is a link to.
        let follow = lookup & FOLLOW != 0 && !(set(CREATE) && set(EXCLUSIVE));
        let now = g.world.now();
        let vfs = &mut g.world.vfs;
        let place = vfs.resolve(base, path, follow)?;
        let rights = rights & granted;
        let id = match place.node {
            None if set(CREATE) => vfs.create(&place, now)?,
            None => return Err(Errno::Noent.into()),
            Some(_) if set(CREATE) && set(EXCLUSIVE) => return Err(Errno::Exist.into()),
            Some(id) => {
                match vfs.file_type(id) {
                    FileType::Symlink => return Err(Errno::Loop.into()),
                    FileType::Directory if set(CREATE) || set(TRUNCATE) => {
                        return Err(Errno::Isdir.into());
                    }
                    FileType::Directory if rights & RIGHT_WRITE != 0 && !set(DIRECTORY) => {
                        return Err(Errno::Isdir.into());
                    }
                    FileType::Directory => {}
                    _ if set(DIRECTORY) => return Err(Errno::Notdir.into()),
                    _ if !vfs.changeable(id) && (set(TRUNCATE) || rights & RIGHT_WRITE != 0) => {
                        return Err(Errno::Rofs.into());
                    }
                    _ if set(TRUNCATE) => vfs.resize(id, 0, now)?,
                    _ => {}
                }
                id
            }
        };
        let mut descriptor = Descriptor::node(id, rights);
        descriptor.inheriting = inheriting & granted;
        descriptor.flags = flags as u16;
        let opened = g.open(descriptor)?;
        Ok(m.put_u32(to, opened)?)
    }

    pub(super) fn path_readlink(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        path: u32,
        len: u32,
        buffer: u32,
        room: u32,
        to: u32,
    ) -> Result<()> {
        let (base, path) = self::path(g, m, fd, path, len)?;
        let id = g.world.vfs.find(base, path, false)?;
        let target = g.world.vfs.target(id).ok_or(Errno::Inval)?;
        let n = target.len().min(room as usize);
        m.put(buffer, &target[..n])?;
        Ok(m.put_u32(to, n as u32)?)
    }

    pub(super) fn path_remove_directory(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Result<()> {
        let (base, path) = self::path(g, m, fd, path, len)?;
        let (place, now) = (g.world.vfs.place(base, path)?, g.world.now());
        g.world.vfs.remove_directory(&place, now)
    }

    pub(super) fn path_rename(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        path: u32,
        len: u32,
        new_fd: u32,
        new_path: u32,
        new_len: u32,
    ) -> Result<()> {
        let (base, path) = self::path(g, m, fd, path, len)?;
        let from = g.world.vfs.place(base, path)?;
        let (base, path) = self::path(g, m, new_fd, new_path, new_len)?;
        let (to, now) = (g.world.vfs.place(base, path)?, g.world.now());
        g.world.vfs.rename(&from, &to, now)
    }

    pub(super) fn path_symlink(
        g: &mut Guest,
        m: &mut Mem<'_>,
        target: u32,
        target_len: u32,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Result<()> {
        let (base, path) = self::path(g, m, fd, path, len)?;
        let target = m.slice(target, target_len)?;
        let (place, now) = (g.world.vfs.place(base, path)?, g.world.now());
        g.world.vfs.make_symlink(&place, target, now)
    }

    pub(super) fn path_unlink_file(
        g: &mut Guest,
        m: &mut Mem<'_>,
        fd: u32,
        path: u32,
        len: u32,
    ) -> Result<()> {
        let (base, path) = self::path(g, m, fd, path, len)?;
        let (place, now) = (g.world.vfs.place(base, path)?, g.world.now());
        g.world.vfs.unlink(&place, now)
    }

    /// What one subscription waits for.
    enum Wait {
        /// A time, in nanoseconds on the scale of `elapsed`.
        Until(u64),
        /// Nothing: the event is there, with this many bytes.
        Ready(u64),
        Error(Errno),
    }

    /// Files are always ready; a wait for time alone moves the clock instead of waiting.
    pub(super) fn poll_oneoff(
        g: &mut Guest,
        m: &mut Mem<'_>,
        subscriptions: u32,
        events: u32,
        count: u32,
        to: u32,
    ) -> Result<()> {
        if count == 0 || count > SUBSCRIPTIONS {
            return Err(Errno::Inval.into());
        }
        m.slice(subscriptions, count * 48)?;
        m.slice(events, count * 32)?;
        let mut waits = Vec::new();
        for n in 0..count {
            let at = subscriptions + n * 48;
            waits.push((m.u64(at)?, m.slice(at + 8, 1)?[0], wait(g, m, at)?));
        }
        if waits.iter().all(|(_, _, wait)| matches!(wait, Wait::Until(_))) {
            let first = waits.iter().filter_map(|(_, _, wait)| match wait {
                Wait::Until(time) => Some(*time),
                _ => None,
            });
            g.world.elapsed = g.world.elapsed.max(first.min().unwrap_or(0));
        }
        let mut happened = 0;
        for (userdata, kind, wait) in waits {
            let (errno, bytes) = match wait {
                Wait::Until(time) if time > g.world.elapsed => continue,
                Wait::Until(_) => (0, 0),
                Wait::Ready(bytes) => (0, bytes),
                Wait::Error(errno) => (errno as u16, 0),
            };
            let mut event = [0; 32];
            event[..8].copy_from_slice(&userdata.to_le_bytes());
            event[8..10].copy_from_slice(&errno.to_le_bytes());
            event[10] = kind;
            event[16..24].copy_from_slice(&bytes.to_le_bytes());
            m.put(events + happened * 32, &event)?;
            happened += 1;
        }
        Ok(m.put_u32(to, happened)?)
    }

    fn wait(g: &mut Guest, m: &Mem<'_>, at: u32) -> Result<Wait, Errno> {
        const ABSOLUTE: u32 = 1;
        const CLOCK: u8 = 0;
        const READ: u8 = 1;
        const WRITE: u8 = 2;
        let ready = match m.slice(at + 8, 1)?[0] {
            CLOCK => {
                let (clock, time) = (m.u32(at + 16)?, m.u64(at + 24)?);
                let absolute = m.u32(at + 40)? & ABSOLUTE != 0;
                return Ok(match (clock, absolute) {
                    (0, true) => Wait::Until(time.saturating_sub(EPOCH)),
                    (1..=3, true) => Wait::Until(time),
                    (0..=3, false) => Wait::Until(g.world.elapsed.saturating_add(time)),
                    _ => Wait::Error(Errno::Inval),
                });
            }
            READ => match g.file(m.u32(at + 16)?, RIGHT_READ) {
                Ok((id, offset)) => Ok(g.world.vfs.len(id).saturating_sub(offset)),
                Err(errno) => Err(errno),
            },
            WRITE => match g.descriptor(m.u32(at + 16)?) {
                Ok(descriptor) if descriptor.rights & RIGHT_WRITE != 0 => Ok(65_536),
                _ => Err(Errno::Badf),
            },
            _ => return Err(Errno::Inval),
        };
        Ok(ready.map_or_else(Wait::Error, Wait::Ready))
    }

    pub(super) fn sched_yield(_: &mut Guest, _: &mut Mem<'_>) -> Result<()> {
        Ok(())
    }

    pub(super) fn random_get(g: &mut Guest, m: &mut Mem<'_>, to: u32, len: u32) -> Result<()> {
        let buffer = m.slice_mut(to, len)?;
        g.world.random.fill(buffer);
        Ok(())
    }

    /// There are no sockets: any descriptor is not one.
    fn not_a_socket(g: &mut Guest, fd: u32) -> Result<()> {
        g.descriptor(fd)?;
        Err(Errno::Notsock.into())
    }

    pub(super) fn sock_accept(g: &mut Guest, _: &mut Mem<'_>, fd: u32, _flags: u32, _to: u32) -> Result<()> {
        not_a_socket(g, fd)
    }

    pub(super) fn sock_recv(
        g: &mut Guest,
        _: &mut Mem<'_>,
        fd: u32,
        _vectors: u32,
        _count: u32,
        _flags: u32,
        _to: u32,
        _out_flags: u32,
    ) -> Result<()> {
        not_a_socket(g, fd)
    }

    pub(super) fn sock_send(
        g: &mut Guest,
        _: &mut Mem<'_>,
        fd: u32,
        _vectors: u32,
        _count: u32,
        _flags: u32,
        _to: u32,
    ) -> Result<()> {
        not_a_socket(g, fd)
    }

    pub(super) fn sock_shutdown(g: &mut Guest, _: &mut Mem<'_>, fd: u32, _how: u32) -> Result<()> {
        not_a_socket(g, fd)
    }
}

/// The directories a step may start from, and by which names (SPEC §7.2).
///
/// A step without `cwd` gets the root alone. With a `cwd`, every directory of the root by its own
/// name, so that absolute paths work, and last the `cwd` as `.`, where relative paths start.
pub(crate) fn preopens(vfs: &Vfs, cwd: Option<&str>) -> Result<Vec<(Id, String)>, Errno> {
    let Some(cwd) = cwd.filter(|cwd| *cwd != "/") else { return Ok(vec![(ROOT, "/".into())]) };
    let here = vfs.find(ROOT, cwd.trim_start_matches('/').as_bytes(), true)?;
    if vfs.file_type(here) != FileType::Directory {
        return Err(Errno::Notdir);
    }
    let top = vfs.entries(ROOT, None);
    let mut preopens: Vec<_> =
        top.map(|(name, id)| (id, format!("/{}", String::from_utf8_lossy(name)))).collect();
    preopens.push((here, ".".into()));
    Ok(preopens)
}
