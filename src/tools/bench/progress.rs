//! How far a load is, for whoever watches it in a terminal.

use super::load::{Plan, Tick};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;

/// A bar on standard error; nothing at all where that is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Whether the bar counts operations; else it counts milliseconds.
    counts: bool,
}

impl Progress {
    /// The bar of a load.
    pub fn of_load(plan: &Plan) -> Progress {
        Progress::new("load", plan)
    }

    /// The bar of storing every key.
    pub fn of_fill(plan: &Plan) -> Progress {
        Progress::new("fill", plan)
    }

    fn new(name: &'static str, plan: &Plan) -> Progress {
        let counts = plan.until.elapsed == Duration::MAX;
        let length = if counts { plan.until.count } else { (plan.warm_up + plan.until.elapsed).as_millis() as u64 };
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3}% {msg}");
        bar.set_style(style.expect("a well-formed template"));
        bar.set_prefix(name);
        Progress { bar, counts }
    }

    /// Tells how far it is.
    pub fn tick(&self, tick: Tick) {
        self.bar.set_position(if self.counts { tick.count } else { tick.elapsed.as_millis() as u64 });
        self.bar.set_message(format!("{} commands", tick.count));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
