//! A bar on a terminal, for work that takes a while.

use crate::log::fs::Fs;
use crate::log::recovery::Segment;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;

/// A bar on standard error, as long as this lives; nothing at all where that is no terminal.
pub struct Bar(ProgressBar);

impl Bar {
    /// The bar of something that goes over these segments, by bytes.
    pub fn of_log(name: &'static str, disk: &dyn Fs, segments: &[Segment]) -> Bar {
        let bytes = segments.iter().filter_map(|segment| disk.file_len(&segment.name).ok()).sum();
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(bytes) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3}% {bytes}/{total_bytes}");
        bar.set_style(style.expect("a well-formed template"));
        bar.set_prefix(name);
        Bar(bar)
    }

    /// So many bytes are done.
    pub fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
