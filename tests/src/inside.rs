//! Nodes inside this process, on the loopback interface: many of them, cheaply.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use node::{
    control::Node,
    driver::{Command, Driver, Note},
    net::{Config, Multiaddr},
};
use protocol::{
    id::{ActionId, NarHash},
    key::AttesterKey,
    name::Name,
    output::{Output, Outputs},
    statement::{Attestation, Body, Platform},
};
use store::Store;
use tokio::sync::{mpsc, oneshot, watch};

/// How long a node may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that runs until this is dropped.
pub struct Inside {
    /// Its store.
    pub store: Arc<Store>,
    /// How commands reach it.
    pub node: Node,
    /// Where it listens, with its id at the end.
    pub address: Multiaddr,
    /// Whom it has banished, by id.
    pub banished: Arc<Mutex<BTreeSet<String>>>,
    commands: mpsc::Sender<Command>,
    _home: tempfile::TempDir,
}

impl Inside {
    /// With an empty store, whose roster is `attesters`; it is to be connected to `peers`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn start(attesters: &[AttesterKey], peers: &[Multiaddr]) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory");
        let entry = |(n, key): (usize, &AttesterKey)| format!(r#""a{n}": {{ "key": "{key}" }}"#);
        let entries: Vec<_> = attesters.iter().enumerate().map(entry).collect();
        let roster = format!(r#"{{ "version": 1, "attesters": {{ {} }} }}"#, entries.join(", "));
        std::fs::write(home.path().join("trust.json"), roster).expect("a roster");
        Self::over(home, peers, Config::default()).await
    }

    /// With the store in `home`. Where it listens, and that it looks for no neighbours, is not
    /// `config`'s to say.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn over(home: tempfile::TempDir, peers: &[Multiaddr], config: Config) -> Self {
        let store = Arc::new(Store::open(home.path(), |_| false).expect("a store"));
        let listen = Some(vec!["/ip4/127.0.0.1/tcp/0".parse().expect("an address")]);
        let config = Config { listen, mdns: Some(false), ..config };
        let (listening, mut listens) = watch::channel(None);
        let banished = Arc::<Mutex<BTreeSet<String>>>::default();
        let noted = banished.clone();
        let note = move |note| match note {
            Note::Listening { address } => _ = listening.send_replace(Some(address)),
            Note::Banished { node, .. } => _ = noted.lock().expect("the list").insert(node),
            _ => {}
        };
        let driver = Driver::new(store.clone(), &config, peers, None, note).expect("a node");
        let (commands, heard) = mpsc::channel(16);
        tokio::spawn(driver.run(heard));
        let address = tokio::time::timeout(PATIENCE, listens.wait_for(Option::is_some)).await;
        let address = address.expect("it listens in time").expect("it runs").clone().expect("an address");
        let node = Node::Here(commands.clone());
        Self { store, node, address, banished, commands, _home: home }
    }

    /// What its node has counted under that name so far, however it ended.
    ///
    /// # Panics
    ///
    /// When it has ended.
    pub async fn counted(&self, name: &str) -> u64 {
        let (reply, text) = oneshot::channel();
        self.commands.send(Command::Metrics(reply)).await.expect("it runs");
        let text = text.await.expect("it runs");
        let value = |line: &str| line.strip_prefix(name)?.rsplit_once(' ')?.1.parse::<u64>().ok();
        text.lines().filter_map(value).sum()
    }

    /// Ends it, in order.
    pub async fn stop(&self) {
        // It may have ended already.
        let _ = self.commands.send(Command::Stop).await;
    }
}

/// That the `n`th of any number of actions gave the `n`th output.
///
/// # Panics
///
/// Never.
pub fn attestation(n: u64) -> Body {
    let name = |text: &str| Name::new(text).expect("a name");
    let output = Output { nar: NarHash::of(&n.to_le_bytes()), size: 96 };
    Body::Built(Attestation {
        action: ActionId::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes()),
        outputs: Outputs::from([(Name::out(), output)]),
        witness: None,
        platform: Platform { engine: name("none"), arch: name("none"), os: name("none") },
    })
}

/// An archive of one file of `len` bytes that do not get shorter.
///
/// # Panics
///
/// When memory is short.
pub fn archive(len: usize) -> Vec<u8> {
    let mut content = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    protocol::nar::dump_file(Vec::new(), false, len as u64, &content[..]).expect("it fits")
}
