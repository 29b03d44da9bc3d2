//! What the server counts, and how STATS names it.
//!
//! Knows no figures of the store: those are added by whoever has them.

use super::peers::Peers;
use crate::command::Command;
use std::time::Instant;

/// The commands, as STATS names them, in the order of [`kind`].
const KINDS: [&str; 24] = [
    "commands_ping",
    "commands_set",
    "commands_get",
    "commands_del",
    "commands_exists",
    "commands_mget",
    "commands_mset",
    "commands_mgets",
    "commands_msets",
    "commands_incr",
    "commands_extend",
    "commands_touch",
    "commands_ttl",
    "commands_getdel",
    "commands_getex",
    "commands_delif",
    "commands_scan",
    "commands_count",
    "commands_flush",
    "commands_sync",
    "commands_compact",
    "commands_stats",
    "commands_version",
    "commands_refused",
];
/// The place of what was no command at all.
const REFUSED: usize = KINDS.len() - 1;

/// Counts since the start.
#[derive(Debug)]
pub(super) struct Counters {
    started: Instant,
    by_kind: [u64; KINDS.len()],
    /// Messages of peers that are cut off, discarded unexecuted.
    pub discarded: u64,
    /// Messages to which no reply is possible.
    pub unanswerable: u64,
}

impl Counters {
    /// All zero.
    pub fn new(started: Instant) -> Counters {
        Counters { started, by_kind: [0; KINDS.len()], discarded: 0, unanswerable: 0 }
    }

    /// Counts a command.
    pub fn command(&mut self, command: &Command<'_>) {
        self.count(kind(command));
    }

    /// Counts a message that is no command.
    pub fn refused(&mut self) {
        self.count(REFUSED);
    }

    /// The server's part of STATS.
    pub fn figures(&self, peers: &Peers) -> Vec<(&'static str, String)> {
        let of_peers = peers.figures();
        let mut figures = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("uptime_ms", self.started.elapsed().as_millis().to_string()),
            ("peers", peers.len().to_string()),
            ("peers_cut_off", of_peers.cut_off.to_string()),
            ("replies_dropped", of_peers.replies_dropped.to_string()),
            ("messages_discarded", self.discarded.to_string()),
            ("messages_unanswerable", self.unanswerable.to_string()),
        ];
        figures.extend(KINDS.into_iter().zip(self.by_kind).map(|(name, count)| (name, count.to_string())));
        figures
    }

    fn count(&mut self, kind: usize) {
        if let Some(count) = self.by_kind.get_mut(kind) {
            *count += 1;
        }
    }
}

fn kind(command: &Command<'_>) -> usize {
    match command {
        Command::Ping => 0,
        Command::Set { .. } => 1,
        Command::Get { .. } => 2,
        Command::Delete { .. } => 3,
        Command::Exists { .. } => 4,
        Command::GetMany { .. } => 5,
        Command::SetMany { .. } => 6,
        Command::GetEntries { .. } => 7,
        Command::SetEntries { .. } => 8,
        Command::Increment { .. } => 9,
        Command::Extend { .. } => 10,
        Command::Touch { .. } => 11,
        Command::TimeToLive { .. } => 12,
        Command::GetDelete { .. } => 13,
        Command::GetTouch { .. } => 14,
        Command::DeleteIf { .. } => 15,
        Command::Scan { .. } => 16,
        Command::Count => 17,
        Command::Flush { .. } => 18,
        Command::Sync => 19,
        Command::Compact => 20,
        Command::Stats => 21,
        Command::Version => 22,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_under_their_names() {
        let mut counters = Counters::new(Instant::now());
        counters.command(&Command::Ping);
        counters.command(&Command::Version);
        counters.refused();
        let figures = counters.figures(&Peers::new(1));
        for (name, expected) in
            [("commands_ping", "1"), ("commands_version", "1"), ("commands_refused", "1"), ("commands_stats", "0")]
        {
            let found = figures.iter().find(|(figure, _)| *figure == name).map(|(_, value)| value.as_str());
            assert_eq!(found, Some(expected), "{name}");
        }
    }
}
