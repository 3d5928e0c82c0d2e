//! Chance, the same on every machine.

/// A small generator of numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Seed(pub u64);

impl Seed {
    /// A generator of its own for one purpose: what is drawn for another does not change it.
    pub fn apart(&self, purpose: u64) -> Self {
        let mut seed = Self(self.0 ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93));
        seed.draw();
        seed
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n.max(1) as u64) as usize
    }

    /// A number from the first to the last, both included.
    pub fn between(&mut self, [first, last]: [u64; 2]) -> u64 {
        first + self.draw() % (last.saturating_sub(first) + 1)
    }

    /// Whether something happens that happens so often in a thousand times.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.draw() % 1000 < per_mille
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }

    /// Another order.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }

    /// 32 bytes.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for eight in bytes.chunks_exact_mut(8) {
            eight.copy_from_slice(&self.draw().to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_they_are_everywhere() {
        // The first of SplitMix64 from 0, as published with it.
        assert_eq!([(); 2].map(|()| Seed(0).draw()), [0xe220_a839_7b1d_cdaf; 2]);
        let mut seed = Seed(1);
        assert!((0..1000).all(|_| (3..=5).contains(&seed.between([3, 5])) && seed.below(7) < 7));
        assert_eq!((seed.below(0), seed.chance(0), seed.chance(1000)), (0, false, true));
        let mut all: Vec<_> = (0..50).collect();
        seed.shuffle(&mut all);
        assert!(!all.is_sorted());
        all.sort_unstable();
        assert!(all.into_iter().eq(0..50));
        assert_ne!(seed.apart(1).draw(), seed.apart(2).draw());
    }
}
