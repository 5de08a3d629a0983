//! Inputs that may be run once only: what the profile left is dealt out to the candidates, block by block and at random.
//!
//! *Guarantees*: an input is dealt to one block only; it comes back only when the block says that it was not begun.
//! *Assumes*: inputs are exchangeable, so that blocks of different inputs can be compared round by round.

use super::statistics::Random;

/// Rounds that must fit into the inputs: three that count, and the warm-up.
pub(super) const ROUNDS: u64 = 4;
/// The serial control's blocks hold at least so many tasks.
const LEAST_SERIAL: u64 = 2;

/// What a candidate would like of a round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wish {
    /// Its place in the field.
    pub(super) candidate: usize,
    /// Tasks at a time.
    pub(super) workers: u64,
    /// Tasks that it can do in a block, as predicted.
    pub(super) tasks: u64,
}

/// The inputs that nobody has run.
#[derive(Debug)]
pub(super) struct Inputs {
    left: Vec<u64>,
    /// For each candidate: least and most inputs of a block; `None` for those that do not race.
    shares: Vec<Option<(u64, u64)>>,
}

impl Inputs {
    /// Divides `left` among the candidates that wish for a share, the control first; rivals with the most workers go without when the
    /// inputs do not suffice for four rounds. `None` when they suffice for no rival.
    pub(super) fn divide(
        mut left: Vec<u64>,
        field: usize,
        wishes: &[Wish],
        random: &mut Random,
    ) -> Option<Self> {
        let least = |wish: &Wish| {
            if wish.candidate == 0 {
                LEAST_SERIAL
            } else {
                wish.workers.max(LEAST_SERIAL)
            }
        };
        let a_round = left.len() as u64 / ROUNDS;
        let mut racing = wishes.to_vec();
        racing.sort_by_key(|wish| (wish.candidate != 0, wish.workers));
        while racing.iter().map(least).sum::<u64>() > a_round && racing.len() > 1 {
            racing.pop();
        }
        if racing.len() < 2 {
            return None;
        }
        let wished = |wish: &Wish| wish.tasks.max(2 * least(wish));
        let least_sum: u64 = racing.iter().map(least).sum();
        let wished_sum: u64 = racing.iter().map(wished).sum();
        let part = if wished_sum > a_round {
            (a_round - least_sum) as f64 / (wished_sum - least_sum) as f64
        } else {
            1.0
        };
        let mut shares = vec![None; field];
        for wish in &racing {
            let more = (wished(wish) - least(wish)) as f64 * part;
            shares[wish.candidate] = Some((least(wish), least(wish) + more as u64));
        }
        random.shuffle(&mut left);
        Some(Self { left, shares })
    }

    /// Whether the candidate races at all.
    pub(super) fn has_share(&self, candidate: usize) -> bool {
        self.shares[candidate].is_some()
    }

    /// Inputs that nobody has run.
    pub(super) fn left(&self) -> u64 {
        self.left.len() as u64
    }

    /// The inputs of a block that is `growth` times as long as the first; `None` when too few are left.
    pub(super) fn deal(&mut self, candidate: usize, growth: f64) -> Option<Vec<u64>> {
        let (least, share) = self.shares[candidate]?;
        let wanted = ((share as f64 * growth) as u64).min(self.left()).max(least);
        let keep = self.left().checked_sub(wanted)?;
        Some(self.left.split_off(keep as usize))
    }

    /// Takes back what a block did not begin: all but the first `taken` of `dealt`.
    pub(super) fn give_back(&mut self, dealt: &[u64], taken: u64) {
        let begun = (taken as usize).min(dealt.len());
        self.left.extend_from_slice(&dealt[begun..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(candidate: usize, workers: u64, tasks: u64) -> Wish {
        Wish {
            candidate,
            workers,
            tasks,
        }
    }

    #[test]
    fn nothing_is_dealt_twice() {
        let wishes = [wish(0, 1, 10), wish(1, 4, 40), wish(2, 16, 160)];
        let mut inputs =
            Inputs::divide((0..2_000).collect(), 3, &wishes, &mut Random::new(1)).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        let mut blocks = 0;
        'race: loop {
            for candidate in [2, 0, 1] {
                let Some(dealt) = inputs.deal(candidate, 1.0) else {
                    break 'race;
                };
                let taken = dealt.len() as u64 / 2;
                for input in &dealt[..taken as usize] {
                    assert!(seen.insert(*input), "{input} was dealt twice");
                }
                inputs.give_back(&dealt, taken);
                blocks += 1;
            }
        }
        assert!(blocks >= 12, "{blocks}");
        assert_eq!(seen.len() as u64 + inputs.left(), 2_000);
    }

    #[test]
    fn who_needs_too_many_goes_without() {
        let wishes = [wish(0, 1, 10), wish(1, 256, 5_000), wish(2, 8, 80)];
        let inputs = Inputs::divide((0..200).collect(), 3, &wishes, &mut Random::new(1)).unwrap();
        assert!(inputs.has_share(0) && inputs.has_share(2) && !inputs.has_share(1));
        assert!(
            Inputs::divide((0..12).collect(), 3, &wishes, &mut Random::new(1)).is_none(),
            "four rounds of two candidates need more than twelve inputs"
        );
    }

    #[test]
    fn scarce_inputs_are_shared_so_that_four_rounds_fit() {
        let wishes = [wish(0, 1, 1_000), wish(1, 4, 4_000)];
        let mut inputs =
            Inputs::divide((0..100).collect(), 2, &wishes, &mut Random::new(1)).unwrap();
        for _ in 0..ROUNDS {
            assert!(inputs.deal(1, 1.0).is_some() && inputs.deal(0, 1.0).is_some());
        }
    }
}
