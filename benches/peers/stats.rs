//! What kvd says of itself: STATS, by name.

use kvd::tools::bench::connection::Connection;
use kvd::tools::bench::zmtp;
use std::collections::BTreeMap;
use std::io;

/// The figures of one moment.
pub struct Stats {
    by_name: BTreeMap<String, String>,
}

impl Stats {
    /// Asks for them.
    ///
    /// # Errors
    /// The connection broke, or no answer came in time.
    pub fn ask(control: &mut Connection) -> io::Result<Stats> {
        let reply = control.ask_in_full(&[b"STATS"])?;
        // Behind the envelope and OK.
        let words: Vec<_> = zmtp::frames(&reply).into_iter().skip(2).map(String::from_utf8_lossy).collect();
        let pairs = words.chunks_exact(2).map(|pair| (pair[0].clone().into_owned(), pair[1].clone().into_owned()));
        Ok(Stats { by_name: pairs.collect() })
    }

    /// A count.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn count(&self, name: &str) -> io::Result<u64> {
        let count = self.by_name.get(name).and_then(|value| value.parse().ok());
        count.ok_or_else(|| io::Error::other(format!("kvd's STATS do not tell {name}")))
    }

    /// Those whose name holds this word.
    pub fn named(self, word: &str) -> Vec<(String, String)> {
        self.by_name.into_iter().filter(|(name, _)| name.contains(word)).collect()
    }
}
