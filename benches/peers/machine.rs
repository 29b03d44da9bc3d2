//! Whether the machine was ours while it was measured.
//!
//! On a rented machine the hypervisor gives processor time to others, and a row that was measured then is a
//! row about them. Nothing can be done about it here but to say so beside the figures.

use std::fs;
use std::io;

/// Processor time of the whole machine since it started, in ticks.
#[derive(Clone, Copy)]
pub struct Clock {
    stolen: u64,
    total: u64,
}

impl Clock {
    /// The time now.
    ///
    /// # Errors
    /// `/proc/stat` can't be read.
    pub fn now() -> io::Result<Clock> {
        let text = fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().unwrap_or_default();
        // user, nice, system, idle, iowait, irq, softirq, steal; the guests' time after it is part of user.
        let ticks: Vec<u64> = line.split_ascii_whitespace().skip(1).take(8).flat_map(str::parse).collect();
        Ok(Clock { stolen: ticks.get(7).copied().unwrap_or(0), total: ticks.iter().sum() })
    }

    /// The part of the time since then that the machine wanted and did not get, in percent.
    ///
    /// # Errors
    /// As [`Clock::now`].
    pub fn stolen_since(self) -> io::Result<f64> {
        let now = Clock::now()?;
        let total = now.total.saturating_sub(self.total).max(1);
        Ok(now.stolen.saturating_sub(self.stolen) as f64 * 100.0 / total as f64)
    }
}
