//! A start in progress: who answers meanwhile, and what the operator sees of it.
//!
//! Knows how far the replay has come, and nothing of how it is done.

use super::progress::{Durable, Wait};
use super::reception::Answers;
use crate::command::{Command, ErrorCode, Reply};
use crate::engine::View;
use crate::log::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often a line is logged where there is no terminal to draw a bar on.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// How far the replay is: asks peers for patience, and shows the operator.
pub(super) struct Loading {
    progress: Arc<Progress>,
    /// `None` where standard error is no terminal.
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Loading {
    /// Of a replay that counts here.
    pub fn new(progress: Arc<Progress>, now: Instant) -> Loading {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("reading the log {wide_bar} {bytes}/{total_bytes} {eta}") {
                bar.set_style(style);
            }
            bar
        });
        Loading { progress, bar, last_line: now }
    }

    /// Shows how far it is.
    pub fn show(&mut self, now: Instant) {
        if let Some(bar) = &self.bar {
            bar.set_length(self.progress.total.load(Ordering::Relaxed));
            bar.set_position(self.progress.done.load(Ordering::Relaxed));
        } else if now.saturating_duration_since(self.last_line) >= LINE_EVERY {
            self.last_line = now;
            tracing::info!("reading the log: {}%", self.percent());
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn percent(&self) -> u64 {
        percent(self.progress.done.load(Ordering::Relaxed), self.progress.total.load(Ordering::Relaxed))
    }
}

impl Answers for Loading {
    fn foresee(&self, _: &Command<'_>) {}

    fn answer(&mut self, _: &Command<'_>, _: View, encode: &mut dyn FnMut(&Reply<'_>)) -> Wait {
        let message = format!("{}% of the log is read; ask again in a moment", self.percent());
        encode(&Reply::Error(ErrorCode::Loading, message.into()));
        Wait::NOTHING
    }

    fn durable(&self) -> Durable {
        Durable::default()
    }

    fn forming(&self) -> usize {
        0
    }

    fn figures(&self, into: &mut Vec<(&'static str, String)>) {
        into.push(("loading_percent", self.percent().to_string()));
    }
}

/// Never 100 before the end, and 0 while it is not known how much there is.
fn percent(done: u64, total: u64) -> u64 {
    match total {
        0 => 0,
        _ => (u128::from(done) * 100 / u128::from(total)).min(99) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_modest() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(1, 2), 50);
        assert_eq!(percent(2, 2), 99);
        assert_eq!(percent(u64::MAX, u64::MAX), 99);
    }
}
