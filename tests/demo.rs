//! The demonstration: it shows what it promises, and leaves nothing behind.

use tests::Sandbox;

#[test]
fn the_demonstration_shows_what_it_promises() {
    let sandbox = Sandbox::new(env!("CARGO_BIN_EXE_assize"));
    let temp = tempfile::tempdir().expect("a directory");
    let mut command = sandbox.command(["demo"]);
    command.env("TMPDIR", temp.path());
    let said = tests::said(command);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    let lines: Vec<_> = said.out.lines().map(str::trim).collect();
    // Three build the same.
    let nar = lines.iter().find_map(|line| line.strip_prefix("alice  nar:")).expect("alice builds");
    let nar = nar.split(' ').next().expect("a hash");
    for builder in ["bob    nar:", "carol  nar:"] {
        let same = lines.iter().any(|line| line.strip_prefix(builder).is_some_and(|l| l.starts_with(nar)));
        assert!(same, "{}", said.out);
    }
    let shows = |what: &str| assert!(said.out.contains(what), "no `{what}`\n{}", said.out);
    shows("✔ primes: accepted: alice, bob, carol agree (2 of 3: alice, bob, carol)");
    shows(&format!("    1 archive to download, 352 B\n    nar:{nar}  primes  352 B"));
    shows("error: `squares` is disputed, so nothing is taken");
    shows("not counted: carol, place 2: equivocated");
    shows("not counted: bob, place 3: its proof of execution is wrong: it copied");
    shows("alice       4  honest");
    assert_eq!(said.err, "");
    // Nothing is left: no file, no process.
    assert_eq!(std::fs::read_dir(temp.path()).expect("it").count(), 0);
    let of_it = |process: &std::fs::DirEntry| {
        let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&*temp.path().to_string_lossy())
    };
    if let Ok(processes) = std::fs::read_dir("/proc") {
        assert_eq!(processes.flatten().filter(of_it).count(), 0);
    }
    assert!(!sandbox.home().exists(), "the owner's own store is not touched");
}
