//! A million statements that nobody signed: those of the vectors, damaged. In a process of its own,
//! so that what it takes of memory can be told.

use std::{fs, time::Instant};

use protocol::statement::Unverified;
use tests::{
    fuzz::GENUINE,
    mutation::{Random, mutated},
};

const MUTANTS: usize = 1_000_000;

/// What all of them may take, in KiB: 16 MiB. The longest has 64 KiB, and what a length in it claims
/// is not set aside.
const GROWTH: u64 = 16 << 10;

/// The most memory, and the most address space, that this process has had, in KiB; zeros where the
/// system does not tell. Of address space the allocator has some tens of MiB from the start.
fn peaks() -> [u64; 2] {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["VmHWM:", "VmPeak:"].map(|name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
        line.map_or(0, |number| number.trim().parse().expect("a number"))
    })
}

/// Damage number `n`: of the signature alone one time in ten, of anything else.
fn damaged(n: usize, random: &mut Random) -> Vec<u8> {
    let (seed, other) = (GENUINE[n / 10 % GENUINE.len()], GENUINE[n / 10 / GENUINE.len() % GENUINE.len()]);
    if !n.is_multiple_of(10) {
        return mutated(seed, other, random);
    }
    let mut signature = mutated(&seed[..64], &other[..64], random);
    signature.resize(64, 0);
    [&signature, &seed[64..]].concat()
}

#[test]
fn no_damaged_statement_verifies() {
    let mut random = Random::new(1_000_000);
    let (mut malformed, mut forged, mut genuine) = (0, 0, 0);
    let (before, started) = (peaks(), Instant::now());
    for n in 0..MUTANTS {
        let bytes = damaged(n, &mut random);
        let Ok(unverified) = Unverified::from_bytes(&bytes) else {
            malformed += 1;
            continue;
        };
        match unverified.verify() {
            Err(_) => forged += 1,
            // What damage did not change, or made of one into another.
            Ok(signed) if GENUINE.contains(&bytes.as_slice()) => {
                assert_eq!(signed.bytes(), bytes);
                genuine += 1;
            }
            Ok(signed) => panic!("damage {n} verifies: {:?}", signed.statement()),
        }
    }
    let after = peaks();
    let grown = [after[0] - before[0], after[1] - before[1]];
    println!(
        "{malformed} malformed, {forged} forged, {genuine} as they were; {:?}; {grown:?} KiB",
        started.elapsed()
    );
    assert_eq!(malformed + forged + genuine, MUTANTS);
    // Enough come as far as the signature.
    assert!(forged > MUTANTS / 5, "only {forged} are well formed");
    assert!(grown.iter().all(|grown| *grown < GROWTH), "they took {grown:?} KiB");
}
