//! `peer`: the nodes that this one is to be connected to.

use std::{collections::BTreeMap, process::ExitCode};

use node::{
    control::Node,
    driver::Reachable,
    net::{
        Multiaddr, PeerId,
        peers::{self, Peers, PeersError, PeersFile, split},
    },
};
use protocol::{
    key::AttesterKey,
    limits::TICKET_ADDRESSES,
    ticket::{Ticket, TicketError},
};
use qrcode::{EcLevel, QrCode, render::unicode};

use crate::{
    context::Context,
    exit::{CliError, Code},
    output,
};

/// Say which nodes to be connected to: invite, add, list, remove
///
/// Being connected gives nobody a vote. Whose word counts is for `assize trust` to say.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum PeerCommand {
    /// Print a ticket, with which others connect to the node that runs here
    Invite {
        /// Print it as a QR code, too
        #[arg(long)]
        qr: bool,
    },
    /// Be connected to a node from now on
    Add {
        /// A ticket that `assize peer invite` printed there, or an address that ends with /p2p/ID
        #[arg(value_name = "TICKET|ADDRESS")]
        address: String,
    },
    /// Show the nodes to be connected to
    List,
    /// Forget a node
    Remove {
        /// Its id
        id: String,
    },
}

impl PeerCommand {
    pub(crate) fn run(self, context: &Context) -> Result<ExitCode, CliError> {
        let file = PeersFile::new(&context.home);
        match self {
            Self::Invite { qr } => return invite(context, qr),
            Self::Add { address: text } if text.to_ascii_lowercase().starts_with("peer:") => {
                let ticket = ticket(&text)?;
                let node = peers::id_of(&ticket.node)
                    .ok_or_else(|| CliError::new(Code::Failed, "the ticket names no node"))?;
                let mut added = 0;
                for address in ticket.addresses.iter().filter_map(|text| text.parse::<Multiaddr>().ok()) {
                    let Ok(address) = address.with_p2p(node) else { continue };
                    file.change(|peers| peers.add(&address))?;
                    added += 1;
                }
                if added == 0 {
                    return Err(CliError::new(Code::Failed, "no address of the ticket is understood")
                        .hint("ask for the address itself, which `assize node status` prints there"));
                }
                context.tell(&format!("a node of this store is now connected to {node} while it runs"));
                if let Some(key) = ticket.attester {
                    context.tell(&format!(
                        "that gives nobody a vote; to count what its owner builds: assize trust add NAME {key}"
                    ));
                }
            }
            Self::Add { address: text } => {
                let address = address(&text)?;
                let (id, _) = split(&address)?;
                let new = file.change(|peers| peers.add(&address))?;
                context.tell(&match new {
                    true => format!("a node of this store is now connected to {id} while it runs"),
                    false => format!("{id} is there, at that address"),
                });
            }
            Self::List => {
                let peers = file.read()?.peers;
                if context.json {
                    let texts: BTreeMap<_, _> =
                        peers.iter().map(|(id, addresses)| (id.to_string(), addresses)).collect();
                    output::json("peers", &texts)?;
                    return Ok(ExitCode::SUCCESS);
                }
                for (id, addresses) in &peers {
                    for address in addresses {
                        output::say(&format!("{id}  {}", output::plain(&address.to_string())))?;
                    }
                }
            }
            Self::Remove { id } => {
                let known = |peers: &mut Peers| match id.parse() {
                    Ok(peer) => peers.peers.remove(&peer).is_some(),
                    Err(_) => false,
                };
                if !file.change(|peers| Ok(known(peers)))? {
                    let what = format!("no node `{id}` is on the list");
                    return Err(CliError::new(Code::NotFound, what).hint("`assize peer list` shows them"));
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A ticket for the node that runs.
fn invite(context: &Context, qr: bool) -> Result<ExitCode, CliError> {
    let node = Node::there(&context.home)?;
    let status = context.block_on(async move { node.status().await })??;
    let id: PeerId = status.node.parse().map_err(|e| CliError::new(Code::Unreachable, format!("{e}")))?;
    let reachable = match &status.reachable {
        Reachable::Yes { at } | Reachable::Relayed { at } => at.iter().cloned().collect(),
        Reachable::Unknown | Reachable::No { .. } => Vec::new(),
    };
    let mut addresses: Vec<Multiaddr> = Vec::new();
    for address in reachable.into_iter().chain(status.addresses) {
        let address = peers::without_node(&address);
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    // Of no use elsewhere, unless there is nothing else, as when both are on one machine.
    if addresses.iter().any(|address| !peers::is_loopback(address)) {
        addresses.retain(|address| !peers::is_loopback(address));
    }
    let addresses = addresses.iter().take(TICKET_ADDRESSES).map(ToString::to_string).collect();
    let attester = context.keys().load()?.map(|key| AttesterKey::of(&key));
    let node = peers::key_of(&id).ok_or_else(|| CliError::new(Code::Unreachable, "no node of this kind"))?;
    let ticket = Ticket { node, attester, addresses }.to_string();
    if context.json {
        output::json("invite", &serde_json::json!({ "ticket": ticket }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if qr {
        let code = QrCode::with_error_correction_level(ticket.to_uppercase(), EcLevel::L)
            .map_err(|e| CliError::of(Code::Failed, &e).hint("leave --qr out"))?;
        output::complain(&code.render::<unicode::Dense1x2>().build());
    }
    output::say(&ticket)?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a ticket.
pub(super) fn ticket(text: &str) -> Result<Ticket, CliError> {
    text.parse().map_err(|e: TicketError| {
        CliError::of(Code::Usage, &e).hint("copy the whole line that `assize peer invite` printed there")
    })
}

/// Reads an address.
pub(super) fn address(text: &str) -> Result<Multiaddr, CliError> {
    text.parse().map_err(|error| {
        CliError::new(Code::Usage, format!("`{text}` is no address: {error}"))
            .hint("addresses are like /ip4/192.0.2.1/tcp/4720/p2p/12D3KooW…")
    })
}

impl From<PeersError> for CliError {
    fn from(error: PeersError) -> Self {
        match &error {
            PeersError::Nobody(_) => Self::of(Code::Usage, &error)
                .hint("take the whole address that `assize node run` or `assize node status` prints there"),
            PeersError::Io { .. } | PeersError::Content { .. } | PeersError::TooMany { .. } => {
                Self::of(Code::Failed, &error)
            }
        }
    }
}
