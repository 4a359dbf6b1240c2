//! Floor 2. Which of several: the less loaded of two picked at random.

/// Reproducible chance, from a seed that the shell gives (xorshift64, Marsaglia 2003).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice that roll by `seed`.
    pub const fn new(seed: u64) -> Self {
        // Zero is the one state that xorshift never leaves.
        Self(if seed == 0 {
            0x9E37_79B9_7F4A_7C15
        } else {
            seed
        })
    }

    /// A random word.
    pub const fn roll(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        #[expect(clippy::as_conversions, reason = "the upper half of the word fits")]
        let upper = (self.0 >> 32) as u32;
        upper
    }

    /// A random index below `count`, which must not be 0.
    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.roll()).unwrap_or(0) % count
    }
}

/// Picks one of `choices` by the power of two choices: fewer requests in flight wins.
pub fn pick<T: Copy>(choices: &[T], load: impl Fn(T) -> u32, dice: &mut Dice) -> Option<T> {
    match choices {
        [] => None,
        [only] => Some(*only),
        _ => {
            let first = dice.below(choices.len());
            // The second pick is among the others, so the two always differ.
            let second = (first + 1 + dice.below(choices.len() - 1)) % choices.len();
            let (first, second) = (*choices.get(first)?, *choices.get(second)?);
            Some(if load(second) < load(first) {
                second
            } else {
                first
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_of_several_is_never_picked_and_the_others_evenly() {
        let loads = [1, 9, 1, 1];
        let mut dice = Dice::new(1);
        let mut picked = [0_u32; 4];
        for _ in 0..3_000 {
            picked[pick(&[0, 1, 2, 3], |at| loads[at], &mut dice).unwrap()] += 1;
        }
        assert_eq!(picked[1], 0);
        assert!(
            picked.iter().all(|count| *count == 0 || *count > 700),
            "{picked:?}"
        );
        assert_eq!(pick(&[7], |_| 0, &mut dice), Some(7));
        assert_eq!(pick::<u8>(&[], |_| 0, &mut dice), None);
    }
}
