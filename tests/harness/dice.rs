//! Chance that comes again: generated cases know their seed, so that a failure does, too.

/// Numbers that look random and are the same every time (xorshift64*, Vigna 2016).
pub struct Dice(u64);

impl Dice {
    /// Those of a case, numbered from 1.
    pub fn of_case(case: u64) -> Dice {
        Dice(case.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % n
    }

    /// One of these, of which there must be some.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).expect("a small number")]
    }
}
