//! Floor 2. Which of several replicas reads for a client.
//!
//! ```text
//!  who may        healthy, weight above 0, good enough for this read: the caller's business
//!     │
//!  distance       only the nearest of these, by zone, then by latency where that is asked for; one
//!     │           in its slow start drives out nobody, but is chosen beside those further away
//!  weight         two are drawn, each by its weight: configured, and small in a slow start
//!     │
//!  load           the second of them only if it has less to do for its weight
//! ```

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

    /// A random number below `count`; none if that is 0.
    const fn below(&mut self, count: u32) -> Option<u32> {
        self.roll().checked_rem(count)
    }
}

/// One that may be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<T> {
    /// Who it is.
    pub id: T,
    /// How far away it is; the lower, the better.
    pub distance: u8,
    /// Whether its slow start is over.
    pub warm: bool,
    /// Its share compared to others, above 0.
    pub weight: u32,
    /// What it has to do.
    pub load: u32,
}

/// Leaves those that are as near as the nearest whose slow start is over.
pub fn keep_nearest<T>(candidates: &mut Vec<Candidate<T>>) {
    let warm = candidates.iter().filter(|it| it.warm);
    if let Some(least) = warm.map(|it| it.distance).min() {
        candidates.retain(|it| it.distance <= least);
    }
}

/// Chooses one; see the module for the order in which things count. What is not nearest is taken
/// out of `candidates`.
pub fn choose<T: Copy>(candidates: &mut Vec<Candidate<T>>, dice: &mut Dice) -> Option<T> {
    keep_nearest(candidates);
    let first = draw(candidates, None, dice)?;
    let one = candidates.get(first)?;
    let two = draw(candidates, Some(first), dice).and_then(|at| candidates.get(at));
    let busy = |of: &Candidate<T>, weight: u32| u64::from(of.load) * u64::from(weight);
    let better = two.filter(|two| busy(two, one.weight) < busy(one, two.weight));
    Some(better.unwrap_or(one).id)
}

/// The place of one, drawn by weight, save the one at `but`.
fn draw<T>(candidates: &[Candidate<T>], but: Option<usize>, dice: &mut Dice) -> Option<usize> {
    let others = || {
        candidates
            .iter()
            .enumerate()
            .filter(|(at, _)| Some(*at) != but)
    };
    let total: u32 = others().map(|(_, it)| it.weight).sum();
    let mut mark = dice.below(total)?;
    for (at, it) in others() {
        match mark.checked_sub(it.weight) {
            Some(rest) => mark = rest,
            None => return Some(at),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(id: usize) -> Candidate<usize> {
        Candidate {
            id,
            distance: 0,
            warm: true,
            weight: 100,
            load: 0,
        }
    }

    /// How often each is chosen in 3000 rounds.
    fn chosen(candidates: &[Candidate<usize>]) -> Vec<u32> {
        let mut dice = Dice::new(1);
        let mut chosen = vec![0_u32; candidates.len()];
        for _ in 0..3_000 {
            chosen[choose(&mut candidates.to_vec(), &mut dice).unwrap()] += 1;
        }
        chosen
    }

    #[test]
    fn the_busiest_of_several_is_never_chosen_and_the_others_evenly() {
        let mut four: Vec<_> = (0..4).map(candidate).collect();
        for (at, it) in four.iter_mut().enumerate() {
            it.load = if at == 1 { 9 } else { 1 };
        }
        let chosen = chosen(&four);
        assert_eq!(chosen[1], 0);
        let even = |count: &u32| *count == 0 || (800..1200).contains(count);
        assert!(chosen.iter().all(even), "{chosen:?}");
        let mut dice = Dice::new(1);
        assert_eq!(choose(&mut vec![candidate(7)], &mut dice), Some(7));
        assert_eq!(choose::<u8>(&mut Vec::new(), &mut dice), None);
    }

    #[test]
    fn idle_replicas_are_chosen_by_weight_and_busy_ones_are_loaded_by_it() {
        let mut two: Vec<_> = (0..2).map(candidate).collect();
        two[1].weight = 25;
        let idle = chosen(&two);
        assert!((500..700).contains(&idle[1]), "{idle:?}");
        // 4 to 1 is just what the weights want; one more tips it.
        (two[0].load, two[1].load) = (41, 10);
        assert_eq!(chosen(&two), [0, 3_000]);
        (two[0].load, two[1].load) = (39, 10);
        assert_eq!(chosen(&two), [3_000, 0]);
    }

    #[test]
    fn what_is_further_away_is_chosen_only_when_nothing_nearer_has_started() {
        let mut three: Vec<_> = (0..3).map(candidate).collect();
        (three[0].distance, three[0].load) = (1, 0);
        three[1].load = 500;
        three[2].load = 500;
        assert_eq!(chosen(&three)[0], 0, "however busy the near ones are");
        for near in [1, 2] {
            (three[near].warm, three[near].weight, three[near].load) = (false, 10, 0);
        }
        let starting = chosen(&three);
        assert!(starting.iter().all(|count| *count > 100), "{starting:?}");
    }
}
