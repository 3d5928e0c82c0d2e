//! `peer`: the nodes that this one is to be connected to.

use std::{collections::BTreeMap, process::ExitCode};

use node::net::{
    Multiaddr,
    peers::{Peers, PeersError, PeersFile, split},
};

use crate::{
    context::Context,
    exit::{CliError, Code},
    output,
};

/// Say which nodes to be connected to: add, list, remove
///
/// Being connected gives nobody a vote. Whose word counts is for `assize trust` to say.
#[derive(clap::Subcommand, Debug)]
pub(crate) enum PeerCommand {
    /// Be connected to a node from now on
    Add {
        /// Its address, which ends with /p2p/ID, as its `assize node run` prints it
        #[arg(value_name = "ADDRESS")]
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
