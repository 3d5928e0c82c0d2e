//! `poll_oneoff` over sockets, clocks, and what wasmtime-wasi has: stdin, above all.
//!
//! What concerns no socket is passed on as it is. Otherwise this machine's `poll` waits for sockets
//! and clocks, and for an alarm that rings when wasmtime-wasi's own wait has come further.

use std::{
    os::fd::OwnedFd,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use wasmtime_wasi::{
    p1::{WasiP1Ctx, wasi_snapshot_preview1 as theirs},
    runtime::{in_tokio, with_ambient_tokio_runtime},
};
use wiggle::GuestMemory;

use super::{
    Descriptor, Errno, Guest,
    descriptors::Descriptors,
    socket::{Socket, errno},
};
use crate::build::Mem;

/// Events in one `poll_oneoff`.
const SUBSCRIPTIONS: u32 = 65_536;

/// Bytes of a `subscription` and of an `event`.
const SUBSCRIPTION: usize = 48;
const EVENT: usize = 32;

/// `eventtype`.
const CLOCK: u8 = 0;
const READ: u8 = 1;
const WRITE: u8 = 2;

/// `subclockflags::abstime`.
const ABSOLUTE: u8 = 1;

/// `eventrwflags::hangup`.
const HANGUP: u16 = 1;

/// What a subscription waits for.
#[derive(Clone, Copy)]
enum Wait<'g> {
    /// A time; none if it is further away than this machine can count.
    Until(Option<Instant>),
    Socket(&'g Socket, PollFlags),
    /// A descriptor, by wasmtime-wasi's number.
    Theirs(u32),
    /// Nothing: the subscription is an error.
    Error(Errno),
}

/// Why a call ends without an event: an error that the program may handle, or a trap.
enum Stop {
    Errno(i32),
    Trap(wasmtime::Error),
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno as i32)
    }
}

impl From<wasmtime::Error> for Stop {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

type Subscription = [u8; SUBSCRIPTION];
type Event = [u8; EVENT];

/// Waits until one of `count` subscriptions happens, and writes an event for each that has.
///
/// A descriptor that is not open, or a clock that is none, is an event with that error, as the
/// standard has it; the call itself fails for no subscription, more than 65,536, or a pointer that
/// leaves the memory.
pub(super) fn poll_oneoff(
    guest: &mut Guest,
    memory: &mut Mem<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    to: u32,
) -> wasmtime::Result<i32> {
    match poll(guest, memory, subscriptions, events, count, to) {
        Ok(()) => Ok(0),
        Err(Stop::Errno(errno)) => Ok(errno),
        Err(Stop::Trap(error)) => Err(error),
    }
}

fn poll(
    guest: &mut Guest,
    memory: &mut Mem<'_>,
    subscriptions: u32,
    events: u32,
    count: u32,
    to: u32,
) -> Result<(), Stop> {
    if count == 0 || count > SUBSCRIPTIONS {
        return Err(Errno::Inval.into());
    }
    memory.slice(events, count * EVENT as u32)?;
    memory.slice(to, 4)?;
    let bytes = memory.slice(subscriptions, count * SUBSCRIPTION as u32)?;
    let (subscriptions, _) = bytes.as_chunks::<SUBSCRIPTION>();
    let Guest { wasi, descriptors, .. } = guest;
    let waits: Result<Vec<_>, Stop> =
        subscriptions.iter().map(|s| Ok((*s, wait(s, descriptors, wasi)?))).collect();
    let waits = waits?;
    let happened = if waits.iter().all(|(_, wait)| matches!(wait, Wait::Until(_) | Wait::Theirs(_))) {
        let passed_on: Vec<_> = waits.iter().map(|(s, wait)| translated(s, *wait)).collect();
        in_tokio(poll_theirs(wasi, &passed_on))?
    } else {
        loop {
            let happened = round(&waits, wasi)?;
            if !happened.is_empty() {
                break happened;
            }
        }
    };
    memory.put(events, happened.as_flattened())?;
    Ok(memory.put_u32(to, happened.len() as u32)?)
}

/// What a subscription waits for, from now on.
fn wait<'g>(
    subscription: &Subscription,
    descriptors: &'g Descriptors,
    wasi: &mut WasiP1Ctx,
) -> Result<Wait<'g>, Stop> {
    let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|n| subscription[at + n]));
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let flags = match subscription[8] {
        CLOCK => {
            let (clock, mut time) = (u32_at(16), u64_at(24));
            // The clocks that wasmtime-wasi has: of the real world, and the monotonic one.
            if clock > 1 {
                return Ok(Wait::Error(Errno::Inval));
            }
            if subscription[40] & ABSOLUTE != 0 {
                time = time.saturating_sub(now(wasi, clock)?);
            }
            return Ok(Wait::Until(Instant::now().checked_add(Duration::from_nanos(time))));
        }
        READ => PollFlags::IN,
        WRITE => PollFlags::OUT,
        _ => return Err(Errno::Inval.into()),
    };
    Ok(match descriptors.get(u32_at(16)) {
        Ok(Descriptor::Socket(socket)) => Wait::Socket(socket, flags),
        Ok(Descriptor::Theirs(number)) => Wait::Theirs(*number),
        Err(errno) => Wait::Error(errno),
    })
}

/// Waits until something may have happened, and gives the events of what has: all of it, so that
/// a busy socket does not hide stdin, nor the reverse.
fn round(waits: &[(Subscription, Wait<'_>)], wasi: &mut WasiP1Ctx) -> Result<Vec<Event>, Stop> {
    let mut deadline: Option<Instant> = None;
    let mut passed_on = vec![];
    for (n, (subscription, wait)) in waits.iter().enumerate() {
        let no_later = |time| deadline.map_or(time, |deadline: Instant| deadline.min(time));
        match *wait {
            Wait::Until(time) => deadline = time.map(no_later).or(deadline),
            Wait::Error(_) => deadline = Some(no_later(Instant::now())),
            Wait::Socket(..) => {}
            Wait::Theirs(_) => {
                let mut subscription = translated(subscription, *wait);
                // Its event is known by the place of its subscription.
                subscription[..8].copy_from_slice(&(n as u64).to_le_bytes());
                passed_on.push(subscription);
            }
        }
    }
    let mut happened = vec![];
    let mut polled = sockets(waits);
    if passed_on.is_empty() {
        poll_sockets(&mut polled, deadline)?;
    } else {
        for mut event in poll_both(wasi, &passed_on, waits, deadline)? {
            let n = u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|n| event[n]));
            if let Some((subscription, _)) = waits.get(n as usize) {
                event[..8].copy_from_slice(&subscription[..8]);
                happened.push(event);
            }
        }
        poll_sockets(&mut polled, Some(Instant::now()))?;
    }
    let (now, mut polled) = (Instant::now(), polled.iter());
    for (subscription, wait) in waits {
        let flags = match wait {
            Wait::Socket(..) => polled.next().map_or(PollFlags::empty(), PollFd::revents),
            _ => PollFlags::empty(),
        };
        happened.extend(event(subscription, *wait, flags, now));
    }
    Ok(happened)
}

/// The event of a subscription, if it has happened; `flags` is what `poll` says of its socket.
fn event(subscription: &Subscription, wait: Wait<'_>, flags: PollFlags, now: Instant) -> Option<Event> {
    let kind = subscription[8];
    let (errno, bytes, flags) = match wait {
        Wait::Until(Some(time)) if time <= now => (0, 0, 0),
        Wait::Error(errno) => (errno as u16, 0, 0),
        Wait::Socket(socket, _) if !flags.is_empty() => {
            let bytes = if kind == READ { socket.readable() } else { 1 };
            let closed =
                if kind == READ { bytes == 0 } else { flags.intersects(PollFlags::ERR | PollFlags::HUP) };
            (0, bytes, if closed { HANGUP } else { 0 })
        }
        Wait::Until(_) | Wait::Socket(..) | Wait::Theirs(_) => return None,
    };
    let mut event = [0; EVENT];
    event[..8].copy_from_slice(&subscription[..8]);
    event[8..10].copy_from_slice(&errno.to_le_bytes());
    event[10] = kind;
    event[16..24].copy_from_slice(&bytes.to_le_bytes());
    event[24..26].copy_from_slice(&flags.to_le_bytes());
    Some(event)
}

/// Waits for sockets, and no longer than to `deadline`.
fn poll_sockets(sockets: &mut [PollFd<'_>], deadline: Option<Instant>) -> Result<(), Errno> {
    let timeout = deadline.map(|deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
    });
    match rustix::event::poll(sockets, timeout.as_ref()) {
        // Whoever was interrupted looks at the time again.
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(errno(error)),
    }
}

/// Waits for sockets and for what wasmtime-wasi has, and no longer than to `deadline`; gives the
/// events of the latter.
fn poll_both(
    wasi: &mut WasiP1Ctx,
    passed_on: &[Subscription],
    waits: &[(Subscription, Wait<'_>)],
    deadline: Option<Instant>,
) -> Result<Vec<Event>, Stop> {
    let alarm = Arc::new(Alarm::new()?);
    let waker = Waker::from(alarm.clone());
    let mut polled = sockets(waits);
    polled.push(PollFd::new(&alarm.0, PollFlags::IN));
    let mut theirs = pin!(poll_theirs(wasi, passed_on));
    loop {
        // First of all in every round, since stdin is read only when it is asked for.
        let theirs = || theirs.as_mut().poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(events) = with_ambient_tokio_runtime(theirs) {
            return events;
        }
        poll_sockets(&mut polled, deadline)?;
        let ready = polled.iter().rev().skip(1).any(|socket| !socket.revents().is_empty());
        if ready || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Ok(vec![]);
        }
        alarm.silence();
    }
}

/// Wakes from a `poll` when wasmtime-wasi has something.
struct Alarm(OwnedFd);

impl Alarm {
    fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self).map_err(errno)
    }

    /// Takes notice, so that the next `poll` waits again.
    fn silence(&self) {
        // That it has not rung is no error.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        // It fails only if it has rung already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// What to ask `poll` of sockets, in the order of their subscriptions.
fn sockets<'g>(waits: &[(Subscription, Wait<'g>)]) -> Vec<PollFd<'g>> {
    let socket = |(_, wait): &(Subscription, Wait<'g>)| match *wait {
        Wait::Socket(socket, flags) => Some(PollFd::new(socket, flags)),
        _ => None,
    };
    waits.iter().filter_map(socket).collect()
}

/// Has wasmtime-wasi wait for subscriptions in its own numbers, in memory of their own.
async fn poll_theirs(wasi: &mut WasiP1Ctx, subscriptions: &[Subscription]) -> Result<Vec<Event>, Stop> {
    let (count, input) = (subscriptions.len(), subscriptions.len() * SUBSCRIPTION);
    let mut room = Room::new(input + count * EVENT + 4);
    let memory = room.memory();
    memory[..input].copy_from_slice(subscriptions.as_flattened());
    let (events, to) = (input, input + count * EVENT);
    let errno = theirs::poll_oneoff(
        wasi,
        &mut GuestMemory::Unshared(memory),
        0,
        events as i32,
        count as i32,
        to as i32,
    )
    .await?;
    if errno != 0 {
        return Err(Stop::Errno(errno));
    }
    let happened = Mem::new(memory).u32(to as u32)? as usize;
    let (events, _) = memory[events..to].as_chunks::<EVENT>();
    Ok(events.iter().take(happened).copied().collect())
}

/// Nanoseconds on one of wasmtime-wasi's clocks.
fn now(wasi: &mut WasiP1Ctx, clock: u32) -> Result<u64, Stop> {
    let mut room = Room::new(8);
    let memory = room.memory();
    let errno = theirs::clock_time_get(wasi, &mut GuestMemory::Unshared(memory), clock as i32, 0, 0)?;
    if errno != 0 {
        return Err(Stop::Errno(errno));
    }
    Ok(Mem::new(memory).u64(0)?)
}

/// A subscription with wasmtime-wasi's number of its descriptor.
fn translated(subscription: &Subscription, wait: Wait<'_>) -> Subscription {
    let mut subscription = *subscription;
    if let Wait::Theirs(number) = wait {
        subscription[16..20].copy_from_slice(&number.to_le_bytes());
    }
    subscription
}

/// Memory for a call of wasmtime-wasi, which wants it aligned on this machine too.
struct Room(Vec<u8>);

impl Room {
    const ALIGNMENT: usize = 8;

    fn new(bytes: usize) -> Self {
        Self(vec![0; bytes + Self::ALIGNMENT - 1])
    }

    fn memory(&mut self) -> &mut [u8] {
        let skip = self.0.as_ptr().align_offset(Self::ALIGNMENT).min(Self::ALIGNMENT - 1);
        &mut self.0[skip..]
    }
}
