//! The numbers of a program's descriptors: which are sockets, and which wasmtime-wasi knows, as what.

use std::os::fd::OwnedFd;

use super::{Errno, socket::Socket};

/// Descriptors open at once.
const DESCRIPTORS: usize = 65_536;

/// What is behind a number.
#[derive(Debug)]
pub(super) enum Descriptor {
    Socket(Socket),
    /// wasmtime-wasi's, by its number there.
    Theirs(u32),
}

/// All descriptors of a program.
#[derive(Debug)]
pub(super) struct Descriptors(Vec<Option<Descriptor>>);

impl Descriptors {
    /// Stdio, then the listeners, then the directories, which wasmtime-wasi numbers from 3.
    pub(super) fn new(listeners: impl Iterator<Item = OwnedFd>, directories: usize) -> Self {
        let stdio = (0..3).map(Descriptor::Theirs);
        let listeners = listeners.map(|fd| Descriptor::Socket(Socket::listener(fd)));
        let directories = (3..).map(Descriptor::Theirs).take(directories);
        Self(stdio.chain(listeners).chain(directories).map(Some).collect())
    }

    /// What is behind `fd`.
    pub(super) fn get(&self, fd: u32) -> Result<&Descriptor, Errno> {
        self.0.get(fd as usize).and_then(Option::as_ref).ok_or(Errno::Badf)
    }

    /// The lowest number that is free, for [`Descriptors::open`].
    pub(super) fn free(&self) -> Result<u32, Errno> {
        let free = self.0.iter().position(Option::is_none).unwrap_or(self.0.len());
        if free < DESCRIPTORS { Ok(free as u32) } else { Err(Errno::Mfile) }
    }

    /// Puts something behind a number that [`Descriptors::free`] gave.
    pub(super) fn open(&mut self, fd: u32, descriptor: Descriptor) {
        if fd as usize == self.0.len() {
            self.0.push(None);
        }
        self.0[fd as usize] = Some(descriptor);
    }

    /// Takes what is behind `fd` away.
    pub(super) fn close(&mut self, fd: u32) -> Result<Descriptor, Errno> {
        self.0.get_mut(fd as usize).and_then(Option::take).ok_or(Errno::Badf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_come_between_stdio_and_directories() {
        let socket = || std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").into();
        let mut descriptors = Descriptors::new([socket(), socket()].into_iter(), 2);
        let theirs = |d: &Descriptors, fd| match d.get(fd) {
            Ok(Descriptor::Theirs(number)) => Some(*number),
            Ok(Descriptor::Socket(_)) => None,
            Err(errno) => panic!("{fd}: {errno:?}"),
        };
        let all: Vec<_> = (0..7).map(|fd| theirs(&descriptors, fd)).collect();
        assert_eq!(all, [Some(0), Some(1), Some(2), None, None, Some(3), Some(4)]);
        assert_eq!(descriptors.get(7).err(), Some(Errno::Badf));

        // The lowest number is taken first.
        assert_eq!(descriptors.free(), Ok(7));
        assert!(matches!(descriptors.close(3), Ok(Descriptor::Socket(_))));
        assert_eq!(descriptors.close(3).err(), Some(Errno::Badf));
        assert_eq!(descriptors.free(), Ok(3));
        descriptors.open(3, Descriptor::Theirs(9));
        assert_eq!(theirs(&descriptors, 3), Some(9));
        assert_eq!(descriptors.free(), Ok(7));
    }

    #[test]
    fn there_is_an_end_of_numbers() {
        let mut descriptors = Descriptors::new([].into_iter(), DESCRIPTORS - 4);
        let last = descriptors.free().expect("one is left");
        descriptors.open(last, Descriptor::Theirs(0));
        assert_eq!(descriptors.free(), Err(Errno::Mfile));
    }
}
