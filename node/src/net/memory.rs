//! No connections beyond some memory: one more node costs less to refuse than to serve.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

/// Refuses connections while this process has more memory of its own than that.
///
/// Pages of files do not count: an archive that is served is mapped, and the system takes its pages
/// back when it needs them. Where the system does not tell (anywhere but on Linux), only the number of
/// connections bounds them.
#[derive(Debug)]
pub(crate) struct Behaviour {
    most: u64,
}

/// A connection was refused.
#[derive(Debug, thiserror::Error)]
#[error("this process has {has} bytes of memory, and takes connections up to {most}")]
struct TooMuch {
    has: u64,
    most: u64,
}

impl Behaviour {
    /// At most so many bytes.
    pub(crate) fn new(most: u64) -> Self {
        Self { most }
    }

    fn look(&self) -> Result<(), ConnectionDenied> {
        let has = own().unwrap_or(0);
        if has > self.most { Err(ConnectionDenied::new(TooMuch { has, most: self.most })) } else { Ok(()) }
    }
}

/// Bytes of memory that are resident and of no file.
fn own() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.look()
    }

    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.look().map(|()| Vec::new())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        libp2p::core::util::unreachable(event)
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_some_memory_nobody_is_let_in() {
        assert_eq!(own().is_some(), cfg!(target_os = "linux"));
        assert_eq!(Behaviour::new(0).look().is_err(), cfg!(target_os = "linux"));
        assert!(Behaviour::new(u64::MAX).look().is_ok());
    }
}
