//! Progress on standard error: one line that is rewritten on a terminal, plain lines elsewhere.

use std::io::Write;

use treadle_core::choice::wording::{rate, seconds};
use treadle_core::choice::{Observer, Progress};

use crate::layout::columns;

/// Writes progress to a stream.
pub(crate) struct Line<'a> {
    stream: &'a mut dyn Write,
    rewrite: bool,
    width: usize,
    shown: bool,
    /// Seconds into the race at which a plain line was last written.
    told_s: Option<f64>,
}

/// Between plain lines of a race: a log of a budget of half a minute stays under ten lines.
const PLAIN_EVERY_S: f64 = 5.0;

impl<'a> Line<'a> {
    pub(crate) fn new(stream: &'a mut dyn Write, rewrite: bool, width: u16) -> Self {
        Self {
            stream,
            rewrite,
            width: usize::from(width).max(20),
            shown: false,
            told_s: None,
        }
    }

    /// Removes what a terminal still shows.
    pub(crate) fn clear(&mut self) {
        if self.shown {
            let _ = write!(self.stream, "\r\x1b[K").and_then(|()| self.stream.flush());
            self.shown = false;
        }
    }

    fn show(&mut self, text: &str) {
        let written = if self.rewrite {
            self.shown = true;
            let fitting: String = text.chars().take(self.width - 1).collect();
            debug_assert!(columns(&fitting) < self.width);
            write!(self.stream, "\r\x1b[K{fitting}")
        } else {
            writeln!(self.stream, "treadle: {text}")
        };
        let _ = written.and_then(|()| self.stream.flush());
    }
}

impl Observer for Line<'_> {
    fn progress(&mut self, progress: &Progress) {
        match progress {
            Progress::Checking { name } => self.show(&format!("checking {name}")),
            Progress::Loading => self.show("loading the function and its inputs"),
            Progress::Profiling { count } => {
                self.show(&format!("running a sample of {count} inputs serially"))
            }
            Progress::Starting { plan } => {
                if self.rewrite {
                    self.show(&format!("starting {}", plan.label()));
                }
            }
            Progress::Racing {
                elapsed_s,
                budget_s,
                plan,
                leader,
            } => {
                let due = self
                    .told_s
                    .is_none_or(|told| elapsed_s - told >= PLAIN_EVERY_S);
                if !self.rewrite && !due {
                    return;
                }
                self.told_s = Some(*elapsed_s);
                let mut text = format!(
                    "racing {} of {} at most",
                    seconds(*elapsed_s),
                    seconds(*budget_s)
                );
                if self.rewrite {
                    text.push_str(&format!(", now {}", plan.label()));
                }
                if let Some((leader, per_s)) = leader {
                    text.push_str(&format!(
                        ", ahead: {} with {}",
                        leader.label(),
                        rate(*per_s)
                    ));
                }
                self.show(&text);
            }
        }
    }
}
