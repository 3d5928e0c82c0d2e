//! The functions of WASI preview 1 themselves, named and ordered as in the standard.
//!
//! Each takes the guest, its memory and the standard's arguments; what it returns is the call's
//! `errno`, or the end of the build.

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
        m.note(to, got);
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
        let bytes = m.take(from, len)?;
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

pub(super) fn fd_prestat_dir_name(g: &mut Guest, m: &mut Mem<'_>, fd: u32, to: u32, len: u32) -> Result<()> {
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
    for (n, (name, inode, file_type)) in dots.skip(cookie.min(2) as usize).chain(entries).enumerate() {
        let next = cookie.saturating_add(n as u64 + 1);
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
    m.note(buffer, used as u32);
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

pub(super) fn fd_seek(g: &mut Guest, m: &mut Mem<'_>, fd: u32, by: i64, whence: u32, to: u32) -> Result<()> {
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
        let bytes = m.take(from, len)?;
        done = done.checked_add(len).ok_or(Errno::Inval)?;
        g.world.log.write(bytes)?;
    }
    Ok(done)
}

/// A path in the guest's memory and the directory that it starts from.
fn path<'m>(g: &mut Guest, m: &'m Mem<'_>, fd: u32, path: u32, len: u32) -> Result<(Id, &'m [u8]), Errno> {
    Ok((g.directory(fd)?, m.take(path, len)?))
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
    let target = m.take(target, target_len)?;
    let (place, now) = (g.world.vfs.place(base, path)?, g.world.now());
    g.world.vfs.make_symlink(&place, target, now)
}

pub(super) fn path_unlink_file(g: &mut Guest, m: &mut Mem<'_>, fd: u32, path: u32, len: u32) -> Result<()> {
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
        g.world.elapsed = g.world.elapsed.max(first.min().unwrap_or(0).min(LATEST));
    }
    let mut happened = 0;
    for (userdata, kind, wait) in waits {
        let (errno, bytes) = match wait {
            Wait::Until(time) if time.min(LATEST) > g.world.elapsed => continue,
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
    m.note(to, len);
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
