//! Damage to inputs, the same on every machine: what a test feeds to decoders beside what is whole.

/// The longest input that is made, in bytes.
const LONGEST: usize = 64 << 10;

/// Numbers that lengths and counts go wrong at.
const EDGES: [u64; 10] = [0, 1, 7, 8, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];

/// A sequence of numbers that depends on its seed alone (xorshift64*).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The sequence number `seed`.
    pub fn new(seed: u64) -> Self {
        // Spread, and never zero, where the sequence would stay.
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`; 0 if that is 0.
    fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 32) as usize) % bound.max(1)
    }

    /// A range within `len`, short more often than long.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let longest = 1 << self.below(12);
        let from = self.below(len + 1);
        let to = from + self.below(longest + 1).min(len - from);
        from..to
    }
}

/// `seed` with one to four kinds of damage; `other` is what pieces are taken from.
pub fn mutated(seed: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        damage(&mut bytes, other, random);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(10) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
        2 if !bytes.is_empty() => bytes[at] = random.next() as u8,
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(random.range(bytes.len()))),
        5 => {
            let piece: Vec<u8> = (0..random.below(9)).map(|_| random.next() as u8).collect();
            drop(bytes.splice(at..at, piece));
        }
        6 => {
            let piece = bytes[random.range(bytes.len())].to_vec();
            drop(bytes.splice(at..at, piece));
        }
        7 => {
            let piece = other[random.range(other.len())].to_vec();
            drop(bytes.splice(random.range(bytes.len()), piece));
        }
        _ => edit_number(bytes, at, random),
    }
}

/// Changes what may be a length at `at`: of 1, 2, 4 or 8 bytes, in either order.
fn edit_number(bytes: &mut [u8], at: usize, random: &mut Random) {
    let width = 1 << random.below(4);
    // Lengths of archives lie at multiples of 8.
    let at = if random.below(2) == 0 { at & !7 } else { at };
    let Some(field) = bytes.get_mut(at..at + width) else { return };
    let little = random.below(3) > 0;
    let order = |n: usize| if little { n } else { width - 1 - n };
    let mut number = (0..width).fold(0, |sum, n| sum | u64::from(field[order(n)]) << (8 * n));
    number = match random.below(4) {
        0 => number.wrapping_add(1),
        1 => number.wrapping_sub(1),
        2 => number.wrapping_add(EDGES[random.below(EDGES.len())]),
        _ => EDGES[random.below(EDGES.len())],
    };
    for n in 0..width {
        field[order(n)] = (number >> (8 * n)) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_reproducible_and_bounded() {
        let seed: Vec<u8> = (0..=255).collect();
        let all = |from: u64| -> Vec<Vec<u8>> {
            let mut random = Random::new(from);
            (0..2000).map(|_| mutated(&seed, b"other", &mut random)).collect()
        };
        assert_eq!(all(1), all(1));
        assert_ne!(all(1), all(2));
        let changed = all(1).iter().filter(|bytes| **bytes != seed).count();
        assert!(changed > 1500, "{changed} of 2000 are changed");
        let mut random = Random::new(3);
        for seed in [&b""[..], b"a"] {
            for _ in 0..2000 {
                assert!(mutated(seed, b"", &mut random).len() <= LONGEST);
            }
        }
    }
}
