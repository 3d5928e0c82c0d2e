//! Streams of our own two protocols, in and out.
//!
//! What comes in reaches the driver as an event, in its turn: a stream is dropped only when
//! [`WAITING`] others of its connection wait already. What goes out is negotiated side by side, so
//! that many pieces of an archive do not wait for each other's round trip.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{Endpoint, InboundUpgrade, OutboundUpgrade, UpgradeInfo, transport::PortUse},
    swarm::{
        ConnectionClosed, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
        FromSwarm, NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
        behaviour::ConnectionEstablished,
        handler::{ConnectionEvent, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::oneshot;

/// Streams of one connection that wait for the driver: it looks at them one after the other, and a
/// connection is not read on meanwhile.
const WAITING: usize = 64;

/// A stream that another node has opened.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) peer: PeerId,
    pub(crate) protocol: StreamProtocol,
    pub(crate) stream: Stream,
}

/// A stream that is to be opened, and who waits for it.
#[derive(Debug)]
pub(crate) struct Open {
    protocol: StreamProtocol,
    reply: oneshot::Sender<Stream>,
}

/// Streams of some protocols.
#[derive(Debug)]
pub(crate) struct Behaviour {
    protocols: Vec<StreamProtocol>,
    events: VecDeque<ToSwarm<Incoming, Open>>,
    /// Connections that go by way of nobody. Once there is one, it is used: a circuit carries little.
    direct: BTreeMap<PeerId, Vec<ConnectionId>>,
}

impl Behaviour {
    /// Streams of these are taken.
    pub(crate) fn new(protocols: Vec<StreamProtocol>) -> Self {
        Self { protocols, events: VecDeque::new(), direct: BTreeMap::new() }
    }

    /// Opens a stream. Nothing comes if the node is not connected, or does not speak the protocol.
    pub(crate) fn open(&mut self, peer_id: PeerId, protocol: StreamProtocol) -> oneshot::Receiver<Stream> {
        let (reply, stream) = oneshot::channel();
        let direct = self.direct.get(&peer_id).and_then(|connections| connections.last());
        let handler = direct.map_or(NotifyHandler::Any, |connection| NotifyHandler::One(*connection));
        let event = Open { protocol, reply };
        // As many as there are questions and pieces that the peer has open.
        self.events.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
        stream
    }

    fn handler(&self) -> Handler {
        Handler { protocols: self.protocols.clone(), opens: VecDeque::new(), incoming: VecDeque::new() }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Incoming;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) if !endpoint.is_relayed() => {
                self.direct.entry(peer_id).or_default().push(connection_id);
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(connections) = self.direct.get_mut(&peer_id) {
                    connections.retain(|known| *known != connection_id);
                    if connections.is_empty() {
                        self.direct.remove(&peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        (protocol, stream): THandlerOutEvent<Self>,
    ) {
        self.events.push_back(ToSwarm::GenerateEvent(Incoming { peer, protocol, stream }));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Incoming, THandlerInEvent<Self>>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// Streams of one connection.
#[derive(Debug)]
pub(crate) struct Handler {
    protocols: Vec<StreamProtocol>,
    opens: VecDeque<Open>,
    incoming: VecDeque<(StreamProtocol, Stream)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Open;
    type ToBehaviour = (StreamProtocol, Stream);
    type InboundProtocol = Plain;
    type OutboundProtocol = Plain;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = oneshot::Sender<Stream>;

    fn listen_protocol(&self) -> SubstreamProtocol<Plain> {
        SubstreamProtocol::new(Plain(self.protocols.clone()), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Plain, oneshot::Sender<Stream>, Self::ToBehaviour>> {
        if let Some(incoming) = self.incoming.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(incoming));
        }
        match self.opens.pop_front() {
            Some(Open { protocol, reply }) => {
                let protocol = SubstreamProtocol::new(Plain(vec![protocol]), reply);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, open: Open) {
        // Whoever wanted it may have given up meanwhile.
        if !open.reply.is_closed() {
            self.opens.push_back(open);
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Plain, Plain, (), oneshot::Sender<Stream>>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. })
                if self.incoming.len() < WAITING =>
            {
                self.incoming.push_back(protocol);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (_, stream),
                info,
            }) => _ = info.send(stream),
            // What fails is told by dropping the sender.
            _ => {}
        }
    }
}

/// The bare stream of one of some protocols.
#[derive(Debug, Clone)]
pub(crate) struct Plain(Vec<StreamProtocol>);

impl UpgradeInfo for Plain {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Plain {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<Stream> for Plain {
    type Output = (StreamProtocol, Stream);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
