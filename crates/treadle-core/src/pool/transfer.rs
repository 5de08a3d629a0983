//! What has travelled between a pool and its workers, and what the pool's own process spent on that.

use super::meter::{Histogram, Sizes};

/// One direction. A payload is one call or chunk going out, one record coming back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes of the body: a pickle, or coded values.
    pub in_band: Sizes,
    /// Bytes of the buffers beside it, of payloads that have any.
    pub out_of_band: Sizes,
    /// Nanoseconds that this process spent, of payloads that were timed.
    pub time: Histogram,
}

impl Transfer {
    /// Counts one payload. `time_ns` is `None` for one that was not timed.
    pub fn add(&mut self, in_band: usize, out_of_band: usize, time_ns: Option<u64>) {
        self.in_band.add(in_band as u64);
        if out_of_band > 0 {
            self.out_of_band.add(out_of_band as u64);
        }
        if let Some(time) = time_ns {
            self.time.add(time);
        }
    }
}

/// The size of a call on its way, and when its pickling began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Bytes of the body.
    pub in_band: usize,
    /// Bytes of all buffers.
    pub out_of_band: usize,
    /// When pickling began, in nanoseconds of the monotonic clock; `None` when it is not timed.
    pub began_ns: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_was_is_counted() {
        let mut transfer = Transfer::default();
        transfer.add(11, 0, None);
        transfer.add(100, 1 << 20, Some(2_000_000));
        assert_eq!(transfer.in_band.count(), 2);
        assert_eq!(transfer.in_band.sum(), 111);
        assert_eq!(transfer.out_of_band.sum(), 1 << 20);
        assert_eq!(transfer.out_of_band.count(), 1);
        assert_eq!(transfer.time.count(), 1);
    }
}
