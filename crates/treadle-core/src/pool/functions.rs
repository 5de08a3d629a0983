//! Meters for each function: the first few have meters of their own, the others share one.
//!
//! *Guarantees*: finding a known function's meters compares a few words and allocates nothing; the table has at most [`MOST_FUNCTIONS`] names.
//! *Assumes*: a key stays one function's as long as the table lives.

use std::sync::Arc;

/// A time series for each function costs whoever keeps it; a program with more functions than this is read by its pools' names.
pub const MOST_FUNCTIONS: usize = 32;

/// What the functions beyond them are called together.
pub const OTHERS: &str = "other";

/// Meters `M` by function.
#[derive(Debug, Default)]
pub struct Functions<M> {
    // Apart from the meters, so that a search stays within few cache lines.
    keys: Vec<u64>,
    own: Vec<(Arc<str>, M)>,
    others: M,
}

impl<M: Default> Functions<M> {
    /// The meters of the function with this key; `None` when it must be entered first.
    pub fn of(&mut self, key: u64) -> Option<&mut M> {
        match self.keys.iter().position(|known| *known == key) {
            Some(place) => self.own.get_mut(place).map(|(_, meters)| meters),
            None if self.keys.len() < MOST_FUNCTIONS => None,
            None => Some(&mut self.others),
        }
    }

    /// Enters a function, if there is room for it; returns its meters.
    pub fn enter(&mut self, key: u64, name: Arc<str>) -> &mut M {
        let place = match self.keys.iter().position(|known| *known == key) {
            Some(place) => place,
            None if self.keys.len() < MOST_FUNCTIONS => {
                self.keys.push(key);
                self.own.push((name, M::default()));
                self.own.len() - 1
            }
            None => return &mut self.others,
        };
        &mut self.own[place].1
    }

    /// The names and meters; last those of all other functions, [`OTHERS`].
    pub fn iter(&self) -> impl Iterator<Item = (&str, &M)> {
        let own = self.own.iter().map(|(name, meters)| (&**name, meters));
        own.chain([(OTHERS, &self.others)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_functions_have_meters_of_their_own_and_the_rest_share_one() {
        let mut functions: Functions<u32> = Functions::default();
        for round in 0..3 {
            for key in 0..40u64 {
                let meters = match functions.of(key) {
                    Some(meters) => meters,
                    None => {
                        assert_eq!(round, 0);
                        functions.enter(key, format!("m.f{key}").into())
                    }
                };
                *meters += 1;
            }
        }
        let found: Vec<(&str, u32)> = functions
            .iter()
            .map(|(name, count)| (name, *count))
            .collect();
        assert_eq!(found.len(), MOST_FUNCTIONS + 1);
        assert_eq!((found[0], found[31]), (("m.f0", 3), ("m.f31", 3)));
        assert_eq!(found[32], (OTHERS, 3 * 8));
    }

    #[test]
    fn a_function_that_is_entered_twice_has_one_place() {
        let mut functions: Functions<u32> = Functions::default();
        *functions.enter(7, "m.f".into()) += 1;
        *functions.enter(7, "m.f".into()) += 1;
        assert_eq!(
            functions.iter().collect::<Vec<_>>(),
            [("m.f", &2), (OTHERS, &0)]
        );
    }
}
