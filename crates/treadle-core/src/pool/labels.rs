//! What the functions of a pool's tasks are called, so that an error can name its task's.

use std::collections::HashMap;
use std::sync::Arc;

/// With this many names of functions that travel with their calls, no more are kept: a program that makes functions for ever, each with a
/// name of its own, must not fill the memory with their names.
const MOST_CARRIED: usize = 4096;

/// The names, by number. A function of the pool's table has its own number.
#[derive(Debug, Default)]
pub(super) struct Labels {
    names: Vec<Arc<str>>,
    carried: HashMap<Arc<str>, u32>,
}

impl Labels {
    /// A number of its own for a function of the pool's table.
    pub(super) fn add(&mut self, name: &str) -> u32 {
        self.names.push(name.into());
        self.names.len() as u32 - 1
    }

    /// The number of a name.
    pub(super) fn number_of(&mut self, name: &str) -> u32 {
        if let Some(number) = self.carried.get(name) {
            return *number;
        }
        if self.carried.len() >= MOST_CARRIED {
            return u32::MAX;
        }
        let number = self.add(name);
        let name = self.names[number as usize].clone();
        self.carried.insert(name, number);
        number
    }

    /// The name with this number.
    pub(super) fn name(&self, number: u32) -> Arc<str> {
        match self.names.get(number as usize) {
            Some(name) => name.clone(),
            None => "a function".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_once_and_not_without_end() {
        let mut labels = Labels::default();
        let table = labels.add("m.f");
        let carried = labels.number_of("m.<lambda>");
        assert_ne!(table, carried);
        assert_eq!(labels.number_of("m.<lambda>"), carried);
        assert_eq!(&*labels.name(table), "m.f");
        for number in 0..2 * MOST_CARRIED {
            labels.number_of(&format!("m.made_{number}"));
        }
        assert!(labels.names.len() <= MOST_CARRIED + 1);
        assert_eq!(&*labels.name(labels.names.len() as u32), "a function");
        assert_eq!(&*labels.name(carried), "m.<lambda>");
    }
}
