//! WASI preview 1 for a build (SPEC §7.3): the 46 functions over [`Vfs`], a clock that moves only
//! when it is read, and random numbers that the action decides.
//!
//! Every function takes the guest's state and its memory and is ordinary synchronous code: results
//! depend on the arguments and on what the guest did before, on nothing else. Each call goes into
//! the transcript (SPEC §11.1): [`Mem`] notes which regions the function read and wrote.

#[allow(clippy::too_many_arguments, reason = "the signatures are the standard's")]
mod calls;

use std::{cell::RefCell, iter, ops::Range};

use protocol::id::ActionId;
use wasmtime::{Caller, Linker, Memory};

use super::{
    errno::{Abort, Errno, Stop},
    limits::Limiter,
    recorder::Recorder,
    vfs::{FileType, Id, ROOT, Stat, Vfs},
};

/// The only module a guest may import from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// The virtual clock starts a second after the time of all inputs, so that what a build makes is
/// newer than what it is made from.
pub(crate) const EPOCH: u64 = 1_000_000_000_000_000_000;

/// Nanoseconds that the clock moves for each reading.
const TICK: u64 = 1000;

/// The clock stops here, 146 years on, instead of overflowing.
const LATEST: u64 = 1 << 62;

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
    pub(crate) recorder: Recorder,
    elapsed: u64,
    random: blake3::OutputReader,
}

impl World {
    /// `action` is the input hash, from which all random numbers come.
    pub(crate) fn new(vfs: Vfs, log: Box<dyn Log + Send>, action: &ActionId, recorder: Recorder) -> Self {
        let mut random = blake3::Hasher::new_derive_key("assize 2026-11 random");
        let random = random.update(action.as_bytes()).finalize_xof();
        Self { vfs, log, recorder, elapsed: 1_000_000_000, random }
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
        self.world.elapsed = (self.world.elapsed + TICK).min(LATEST);
        match clock {
            0 => Ok(self.world.now()),
            1..=3 => Ok(self.world.elapsed),
            _ => Err(Errno::Inval),
        }
    }
}

/// The guest's memory; a pointer outside of it is [`Errno::Fault`].
pub(crate) struct Mem<'m> {
    bytes: &'m mut [u8],
    /// What the call took and gave, for the transcript.
    regions: RefCell<Vec<Range<usize>>>,
}

fn range(at: u32, len: u32) -> Range<usize> {
    at as usize..at as usize + len as usize
}

impl<'m> Mem<'m> {
    pub(crate) fn new(bytes: &'m mut [u8]) -> Self {
        Self { bytes, regions: RefCell::default() }
    }

    pub(crate) fn slice(&self, at: u32, len: u32) -> Result<&[u8], Errno> {
        self.bytes.get(range(at, len)).ok_or(Errno::Fault)
    }

    pub(crate) fn slice_mut(&mut self, at: u32, len: u32) -> Result<&mut [u8], Errno> {
        self.bytes.get_mut(range(at, len)).ok_or(Errno::Fault)
    }

    /// Notes that the call took these bytes, or gave them.
    pub(crate) fn note(&self, at: u32, len: u32) {
        self.regions.borrow_mut().push(range(at, len));
    }

    /// What the guest hands over: a path, or content.
    pub(crate) fn take(&self, at: u32, len: u32) -> Result<&[u8], Errno> {
        let bytes = self.slice(at, len)?;
        self.note(at, len);
        Ok(bytes)
    }

    pub(crate) fn put(&mut self, at: u32, bytes: &[u8]) -> Result<(), Errno> {
        self.slice_mut(at, bytes.len() as u32)?.copy_from_slice(bytes);
        self.note(at, bytes.len() as u32);
        Ok(())
    }

    pub(crate) fn u32(&self, at: u32) -> Result<u32, Errno> {
        let bytes = self.slice(at, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(crate) fn u64(&self, at: u32) -> Result<u64, Errno> {
        Ok(u64::from(self.u32(at)?) | u64::from(self.u32(at.wrapping_add(4))?) << 32)
    }

    pub(crate) fn put_u32(&mut self, at: u32, value: u32) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    pub(crate) fn put_u64(&mut self, at: u32, value: u64) -> Result<(), Errno> {
        self.put(at, &value.to_le_bytes())
    }

    /// The `n`th of the buffers listed at `at`: where it is and how long.
    pub(crate) fn vector(&self, at: u32, n: u32) -> Result<(u32, u32), Errno> {
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

/// The number of a function in transcripts: its place among the 46, in the order of their names.
fn number(name: &str) -> u8 {
    FUNCTIONS.iter().filter(|other| **other < name).count() as u8
}

/// The function with that number in transcripts (SPEC §11.1).
pub fn name(number: u8) -> Option<&'static str> {
    let mut names = FUNCTIONS.to_vec();
    names.sort_unstable();
    names.get(usize::from(number)).copied()
}

/// Makes a call, and records it.
fn called(
    caller: &mut Caller<'_, Guest>,
    number: u8,
    arguments: &[u64],
    call: impl FnOnce(&mut Guest, &mut Mem<'_>) -> Result<()>,
) -> wasmtime::Result<u32> {
    let known = caller.data().memory;
    // Only a start function calls before the memory is known.
    let found = || caller.get_export("memory").and_then(wasmtime::Extern::into_memory);
    let Some(memory) = known.or_else(found) else {
        let errno = Errno::Fault as u16;
        caller.data_mut().world.recorder.call(number, arguments, errno, iter::empty());
        return Ok(u32::from(errno));
    };
    let (bytes, guest) = memory.data_and_store_mut(caller);
    let mut mem = Mem::new(bytes);
    let errno = match call(guest, &mut mem) {
        Ok(()) => 0,
        Err(Stop::Errno(errno)) => {
            // What a failing call looked at first is no business of the standard's.
            mem.regions.get_mut().clear();
            errno as u16
        }
        Err(Stop::Abort(abort)) => return Err(End::Abort(abort).into()),
    };
    let regions = mem.regions.take();
    let regions = regions.into_iter().filter_map(|region| mem.bytes.get(region));
    guest.world.recorder.call(number, arguments, errno, regions);
    Ok(u32::from(errno))
}

/// Defines the 46 functions; each `name(args)` is [`calls`]`::name(guest, memory, args)`.
macro_rules! define {
    ($linker:ident: $($name:ident($($arg:ident: $type:ty),*);)*) => {
        /// The functions a guest may import from [`MODULE`].
        pub(crate) const FUNCTIONS: &[&str] = &["proc_exit", "proc_raise", $(stringify!($name)),*];

        /// Defines what guests may import.
        pub(crate) fn define($linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
            let exit = number("proc_exit");
            $linker.func_wrap(
                MODULE,
                "proc_exit",
                move |mut caller: Caller<'_, Guest>, code: u32| -> wasmtime::Result<()> {
                    caller.data_mut().world.recorder.call(exit, &[u64::from(code)], 0, iter::empty());
                    Err(End::Exit(code).into())
                },
            )?;
            let raise = number("proc_raise");
            $linker.func_wrap(
                MODULE,
                "proc_raise",
                move |mut caller: Caller<'_, Guest>, signal: u32| -> wasmtime::Result<u32> {
                    let errno = match signal {
                        0 => 0,
                        1..=30 => return Err(End::Signal(signal as u8).into()),
                        _ => Errno::Inval as u16,
                    };
                    caller.data_mut().world.recorder.call(raise, &[u64::from(signal)], errno, iter::empty());
                    Ok(u32::from(errno))
                },
            )?;
            $({
                let number = number(stringify!($name));
                $linker.func_wrap(
                    MODULE,
                    stringify!($name),
                    move |mut caller: Caller<'_, Guest>, $($arg: $type),*| -> wasmtime::Result<u32> {
                        let arguments: &[u64] = &[$($arg as u64),*];
                        called(&mut caller, number, arguments, |guest, mem| calls::$name(guest, mem, $($arg),*))
                    },
                )?;
            })*
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
