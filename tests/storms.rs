//! What a network does to nodes: it falls apart and heals, and they are killed at any moment.

use std::{
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use tests::machine::Machine;

const ASSIZE: &str = env!("CARGO_BIN_EXE_assize");

/// Nodes that are killed, one after the other.
const KILLS: u64 = 50;

/// Numbers that are spread well, the same in each run.
fn spread(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// A node is killed at any moment while it fetches and while statements come: nothing is lost, and
/// nobody has to mend anything.
#[test]
fn killed_at_any_moment() {
    let [alice, bob] = [(); 2].map(|()| Machine::new(ASSIZE));
    let mut dave = Machine::new(ASSIZE);
    for builder in [&alice, &bob] {
        builder.sandbox.build("large");
    }
    let [alice, bob] = [alice, bob].map(Machine::start);
    for (name, builder) in [("alice", &alice), ("bob", &bob)] {
        dave.trusts(name, builder);
        dave.sandbox.ok(["peer", "add", &builder.address]);
    }
    dave.sandbox.configure("{ policy: { rule: { atLeast: 2, of: ['alice', 'bob'] } } }");
    let (mut fetched, mut packages) = (0, ["a", "b", "c"].into_iter());
    for n in 0..KILLS {
        dave = dave.start();
        let mut fetch = dave.sandbox.command(["fetch", "large", "--wait", "60"]);
        let mut fetch = fetch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        if n % 15 == 7
            && let Some(package) = packages.next()
        {
            // Statements come, too.
            alice.sandbox.build(package);
            bob.sandbox.build(package);
        }
        thread::sleep(Duration::from_millis(spread(n) % 250));
        dave.kill();
        // It may have been done before, or says that the node is gone.
        let _ = fetch.kill();
        fetched += u32::from(fetch.wait().expect("it ran").success());
        if n % 10 == 9 {
            // Once more from the beginning, with what is left of the last time.
            dave.sandbox.ok(["store", "gc"]);
        }
    }
    let dave = dave.start();
    dave.sandbox.ok(["fetch", "large"]);
    ["a", "b", "c"].iter().for_each(|package| _ = dave.finds(package, 0));
    dave.sandbox.ok(["store", "verify"]);
    let partial = dave.sandbox.home().join("partial");
    assert_eq!(std::fs::read_dir(partial).map_or(0, Iterator::count), 0, "all pieces were used");
    eprintln!("{fetched} of {KILLS} fetches were done before the kill");
}

/// Hosts of a network that this test makes, if it may: each with an address, all on one bridge.
struct Hosts {
    names: Vec<String>,
    switch: String,
}

impl Hosts {
    /// `None`: this machine does not let us, as without being root.
    fn new(count: usize) -> Option<Self> {
        static NETWORKS: AtomicUsize = AtomicUsize::new(0);
        let id = format!("az{}n{}", std::process::id(), NETWORKS.fetch_add(1, Ordering::Relaxed));
        let hosts =
            Self { names: (1..=count).map(|n| format!("{id}h{n}")).collect(), switch: format!("{id}s") };
        let made = || -> Option<()> {
            let switch = &hosts.switch;
            ip(&["netns", "add", switch])?;
            for bridge in ["one", "two"] {
                ip(&["-n", switch, "link", "add", bridge, "type", "bridge"])?;
                ip(&["-n", switch, "link", "set", bridge, "up"])?;
            }
            for (n, name) in hosts.names.iter().enumerate() {
                let (n, port) = (n + 1, format!("port{}", n + 1));
                ip(&["netns", "add", name])?;
                ip(&[
                    "-n", switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", name,
                ])?;
                ip(&["-n", switch, "link", "set", &port, "master", "one", "up"])?;
                ip(&["-n", name, "address", "add", &format!("10.77.0.{n}/24"), "dev", "eth0"])?;
                ip(&["-n", name, "link", "set", "eth0", "up"])?;
                ip(&["-n", name, "link", "set", "lo", "up"])?;
                // Delay and loss, where the kernel can.
                let slow =
                    ["tc", "qdisc", "add", "dev", "eth0", "root", "netem", "delay", "50ms", "loss", "2%"];
                if ip(&[&["netns", "exec", name][..], &slow[..]].concat()).is_none() {
                    eprintln!("this kernel has no netem: no delay, no loss");
                }
            }
            Some(())
        };
        made().map(|()| hosts)
    }

    /// Puts a host on one of two bridges between which there is no way.
    fn plug(&self, n: usize, bridge: &str) {
        ip(&["-n", &self.switch, "link", "set", &format!("port{n}"), "master", bridge]).expect("a port");
    }
}

/// A host in a network of its own, gone with this.
struct Home(String);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.0]);
    }
}

impl Hosts {
    /// A host behind host `n`, which becomes its router: what it sends comes from the router's address, and
    /// only answers come in. `None` if the kernel, or the machine, has nothing to translate addresses.
    fn behind(&self, n: usize) -> Option<Home> {
        let router = &self.names[n - 1];
        let home = Home(format!("{router}h"));
        ip(&["netns", "add", &home.0])?;
        ip(&["-n", router, "link", "add", "eth1", "type", "veth", "peer", "name", "eth0", "netns", &home.0])?;
        ip(&["-n", router, "address", "add", "192.168.7.1/24", "dev", "eth1"])?;
        ip(&["-n", router, "link", "set", "eth1", "up"])?;
        ip(&["-n", &home.0, "address", "add", "192.168.7.2/24", "dev", "eth0"])?;
        ip(&["-n", &home.0, "link", "set", "eth0", "up"])?;
        ip(&["-n", &home.0, "link", "set", "lo", "up"])?;
        ip(&["-n", &home.0, "route", "add", "default", "via", "192.168.7.1"])?;
        let inside = |command: &[&str]| ip(&[&["netns", "exec", router][..], command].concat());
        inside(&["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])?;
        inside(&["nft", "add table ip router"])?;
        inside(&["nft", "add chain ip router out { type nat hook postrouting priority 100 ; }"])?;
        inside(&["nft", "add rule ip router out oifname eth0 masquerade"])?;
        // A stranger's packet is dropped, not refused: a refusal would end what is being tried.
        for hook in ["input", "forward"] {
            let chain = format!("add chain ip router {hook} {{ type filter hook {hook} priority 0 ; }}");
            inside(&["nft", &chain])?;
            let rule = format!("add rule ip router {hook} iifname eth0 ct state new drop");
            inside(&["nft", &rule])?;
        }
        Some(home)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.names.iter().chain([&self.switch]).for_each(|name| _ = ip(&["netns", "delete", name]));
    }
}

fn ip(args: &[&str]) -> Option<()> {
    let mut command = Command::new("ip");
    let done = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    done.success().then_some(())
}

/// The network falls into two halves, in each of which somebody says something; when it is whole again, all
/// know all of it. On a machine that gives no namespaces, one half is stopped instead.
#[test]
fn a_network_falls_apart_and_heals() {
    let hosts = Hosts::new(4);
    let mut machines: Vec<_> = (1..=4)
        .map(|n| match &hosts {
            Some(hosts) => {
                Machine::new(ASSIZE).inside(&hosts.names[n - 1], &format!("/ip4/10.77.0.{n}/tcp/4720"))
            }
            None => Machine::new(ASSIZE),
        })
        .collect();
    for machine in &machines {
        machine.sandbox.ok(["key", "show"]);
    }
    machines = machines.into_iter().map(Machine::start).collect();
    let names = ["alice", "bob", "carol", "dave"];
    for (n, one) in machines.iter().enumerate() {
        for (m, other) in machines.iter().enumerate().filter(|(m, _)| *m != n) {
            one.trusts(names[m], other);
            if m < n {
                one.sandbox.ok(["peer", "add", &other.address]);
            }
        }
        let others: Vec<_> =
            names.iter().enumerate().filter(|(m, _)| *m != n).map(|(_, name)| name).collect();
        one.sandbox.configure(&format!("{{ policy: {{ rule: {{ atLeast: 1, of: {others:?} }} }} }}"));
    }
    machines[0].sandbox.build("a");
    machines[1..].iter().for_each(|machine| _ = machine.finds("a", 0));
    // Alice and bob here, carol and dave there.
    let stop = |stop: bool| {
        for (n, machine) in machines.iter().enumerate().skip(2) {
            match &hosts {
                Some(hosts) => hosts.plug(n + 1, if stop { "two" } else { "one" }),
                None => {
                    use rustix::process::{Pid, Signal, kill_process};
                    let pid = Pid::from_child(machine.running.as_ref().expect("it runs"));
                    kill_process(pid, if stop { Signal::STOP } else { Signal::CONT }).expect("it runs");
                }
            }
        }
    };
    stop(true);
    machines[0].sandbox.build("b");
    machines[1].finds("b", 0);
    if hosts.is_some() {
        machines[2].sandbox.build("c");
        machines[3].finds("c", 0);
        let said = machines[3].sandbox.run(["fetch", "b", "--wait", "2"]);
        assert_eq!(said.code, 10, "{}", said.err);
    }
    stop(false);
    machines[2..].iter().for_each(|machine| _ = machine.finds("b", 0));
    machines[3].sandbox.ok(["fetch", "b"]);
    if hosts.is_some() {
        machines[..2].iter().for_each(|machine| _ = machine.finds("c", 0));
    }
}

/// A node to whose address there is no way finds that out, and is reached by way of one that it is
/// connected to. Needs network namespaces.
#[test]
fn who_cannot_be_reached_is_reached_by_way_of_another() {
    let Some(hosts) = Hosts::new(3) else {
        eprintln!("this machine gives no network namespaces: nothing was tested");
        return;
    };
    let listen = "/ip4/10.77.0.1/tcp/4720";
    let hub = Machine::new(ASSIZE).inside(&hosts.names[0], listen);
    hub.sandbox.configure(&format!("{{ network: {{ external: ['{listen}'] }} }}"));
    let hub = hub.start();
    // Only this host knows the way to where she listens; nor can she call dave when they agree to
    // try that.
    ip(&["-n", &hosts.names[1], "address", "add", "10.99.0.2/32", "dev", "lo"]).expect("an address");
    ip(&["-n", &hosts.names[1], "route", "add", "blackhole", "10.77.0.3/32"]).expect("a route");
    let alice = Machine::new(ASSIZE).inside(&hosts.names[1], "/ip4/10.99.0.2/tcp/4720");
    alice.sandbox.ok(["key", "show"]);
    alice.sandbox.ok(["peer", "add", &hub.address]);
    let alice = alice.start();
    while alice.hears("reachable")["reachable"]["is"] != "relayed" {}
    let dave = Machine::new(ASSIZE).inside(&hosts.names[2], "/ip4/10.77.0.3/tcp/4720");
    dave.trusts("alice", &alice);
    dave.sandbox.configure("{ policy: 'one' }");
    dave.sandbox.ok(["peer", "add", &hub.address]);
    let dave = dave.start();
    let nar = alice.sandbox.build("a");
    dave.finds("a", 0);
    dave.finds_a_way_to("a", &nar);
    assert_eq!(hub.sandbox.json(&["store", "df"])["archives"]["files"], 0);
    let peers = dave.sandbox.json(&["node", "status"])["peers"].clone();
    let by_way = peers.as_object().expect("peers").values().filter_map(serde_json::Value::as_str);
    assert!(by_way.into_iter().any(|address| address.contains("p2p-circuit")), "{peers}");
}

/// Two that are each behind a router which lets nothing in find a way through both, with the help of
/// one that both reach; and have of each other what no circuit carries. Needs network namespaces, and
/// a kernel that translates addresses.
#[test]
fn who_is_behind_a_router_is_reached_directly() {
    let Some(hosts) = Hosts::new(3) else {
        eprintln!("this machine gives no network namespaces: nothing was tested");
        return;
    };
    let homes = [2, 3].map(|n| hosts.behind(n));
    let [Some(one), Some(two)] = &homes else {
        eprintln!("no address translation here (`nft`, package nftables): nothing was tested");
        return;
    };
    let listen = "/ip4/10.77.0.1/tcp/4720";
    let hub = Machine::new(ASSIZE).inside(&hosts.names[0], listen);
    hub.sandbox.configure(&format!("{{ network: {{ external: ['{listen}'] }} }}"));
    let hub = hub.start();
    let [alice, dave] = [one, two].map(|home| {
        let machine = Machine::new(ASSIZE).inside(&home.0, "/ip4/192.168.7.2/tcp/4720");
        machine.sandbox.ok(["key", "show"]);
        machine.sandbox.ok(["peer", "add", &hub.address]);
        machine
    });
    let alice = alice.start();
    while alice.hears("reachable")["reachable"]["is"] != "relayed" {}
    dave.trusts("alice", &alice);
    dave.sandbox.configure("{ policy: 'one' }");
    let dave = dave.start();
    let nar = alice.sandbox.build("large");
    dave.finds("large", 0);
    dave.finds_a_way_to("large", &nar);
    assert_eq!(hub.sandbox.json(&["store", "df"])["archives"]["files"], 0);
    let peers = dave.sandbox.json(&["node", "status"])["peers"].clone();
    let id = alice.address.rsplit('/').next().expect("an id");
    let address = peers[id].as_str().unwrap_or_default();
    assert!(address.starts_with("/ip4/10.77.0.2/") && !address.contains("p2p-circuit"), "{peers}");
}
