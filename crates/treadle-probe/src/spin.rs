//! The spin probe: how many cores really come when that many threads ask for them.
//!
//! *Guarantees*: takes the asked time and a little more, never blocks on anything but its own threads.
//! *Assumes*: 20 to 50 ms are enough to meet the scheduler's slices (3 to 10 ms) several times.

use crate::clock;

/// Runs `threads` busy threads for `seconds` and returns the cores that they got together.
///
/// Each thread's share is its own CPU time over its own wall time, so that thread start-up does not count.
pub fn cores(threads: usize, seconds: f64) -> f64 {
    let spin = || {
        let (wall, cpu) = (clock::monotonic(), clock::thread_cpu());
        let mut word = 1u64;
        loop {
            for _ in 0..2_000 {
                word = std::hint::black_box(
                    word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1),
                );
            }
            let elapsed = clock::monotonic() - wall;
            if elapsed >= seconds {
                return ((clock::thread_cpu() - cpu) / elapsed).min(1.0);
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(spin)).collect();
        spin()
            + others
                .into_iter()
                .filter_map(|one| one.join().ok())
                .sum::<f64>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_asked_for() {
        let came = cores(2, 0.02);
        assert!(came > 0.0 && came <= 2.0, "{came}");
    }
}
