//! The oracle: exact mean value analysis of a closed network, against which the simulation is tested.
//!
//! Reiser and Lavenberg (1980): with n customers, a task's time at a queue is its demand times one more than those whom it finds there, and it
//! finds what n - 1 customers would leave. Exact for exponential demands in order of arrival, and for any under equal shares.

/// Tasks per second of `customers` that visit each queue for its demand (seconds), one after the other, and then stay `delay` seconds
/// elsewhere.
pub(super) fn mean_value_analysis(demands: &[f64], delay: f64, customers: u32) -> f64 {
    let mut queues = vec![0.0; demands.len()];
    let mut per_s = 0.0;
    for present in 1..=customers {
        let times: Vec<f64> = demands
            .iter()
            .zip(&queues)
            .map(|(demand, queue)| demand * (1.0 + queue))
            .collect();
        per_s = f64::from(present) / (delay + times.iter().sum::<f64>());
        for (queue, time) in queues.iter_mut().zip(&times) {
            *queue = per_s * time;
        }
    }
    per_s
}

#[test]
fn the_oracle_knows_the_textbook() {
    // One queue without delay is always busy; two equal ones serve n / (n + 1) of one (balanced network).
    let close = |one: f64, other: f64| assert!((one / other - 1.0).abs() < 1e-12);
    close(mean_value_analysis(&[0.5], 0.0, 7), 2.0);
    close(mean_value_analysis(&[0.5, 0.5], 0.0, 3), 2.0 * 3.0 / 4.0);
    close(mean_value_analysis(&[], 0.5, 3), 6.0);
}
