//! The commands that only look.
//!
//! What they see is the [`View`] of the call; what they return borrows from the store, so that a value is copied
//! once, into the reply's frames.

use super::{Call, Engine, View};
use crate::command::{ErrorCode, Reply, StoredValue};
use crate::mutation::Key;
use crate::table::Entry;

impl Engine {
    pub(super) fn get(&self, call: &mut Call<'_>, key: Key<'_>) -> Reply<'_> {
        self.asked_for(call, key).map_or(Reply::Miss, value)
    }

    pub(super) fn get_many(&self, call: &mut Call<'_>, keys: &[Key<'_>]) -> Reply<'_> {
        let values: Vec<_> = keys.iter().map(|&key| self.asked_for(call, key).map(Entry::value)).collect();
        match self.too_much(values.iter().copied()) {
            Some(refusal) => refusal,
            None => Reply::Values(values),
        }
    }

    pub(super) fn get_entries(&self, call: &mut Call<'_>, keys: &[Key<'_>]) -> Reply<'_> {
        let entries: Vec<_> = keys.iter().map(|&key| self.asked_for(call, key).map(stored)).collect();
        match self.too_much(entries.iter().map(|entry| entry.map(|entry| entry.bytes))) {
            Some(refusal) => refusal,
            None => Reply::Entries(entries),
        }
    }

    /// What a client that wants a value sees of a key: it counts as a use of it, and as a hit or a miss.
    fn asked_for(&self, call: &mut Call<'_>, key: Key<'_>) -> Option<&Entry> {
        let seen = self.seen(call, key);
        self.lookups.count(seen.is_some());
        seen.inspect(|entry| entry.touch())
    }

    /// The refusal of values that are too much for one message: one key may be named again and again.
    fn too_much<'v>(&self, values: impl Iterator<Item = Option<&'v [u8]>>) -> Option<Reply<'static>> {
        let bytes: usize = values.flatten().map(<[u8]>::len).sum();
        let most = self.limits.max_message();
        (bytes > most).then(|| {
            let message =
                format!("values of {bytes} bytes together; the limit of a reply is {most}: ask for fewer keys");
            Reply::Error(ErrorCode::TooBig, message.into())
        })
    }

    /// Counts every mention of a key: `EXISTS a a` is 2.
    pub(super) fn exists(&self, call: &mut Call<'_>, keys: &[Key<'_>]) -> Reply<'static> {
        number(keys.iter().filter(|&&key| self.seen(call, key).is_some()).count())
    }

    pub(super) fn time_to_live(&self, call: &mut Call<'_>, key: Key<'_>) -> Reply<'static> {
        match self.seen(call, key).map(Entry::deadline) {
            None => Reply::Miss,
            Some(0) => Reply::Number(-1),
            Some(deadline) => Reply::Number(i64::try_from(deadline - call.now).unwrap_or(i64::MAX)),
        }
    }

    /// Entries, those included that have expired but were not removed yet, and those of which it is not known yet
    /// that a flush of a prefix covers them.
    pub(super) fn count(&mut self, call: &mut Call<'_>) -> Reply<'static> {
        match call.view {
            View::Durable => number(self.table.len()),
            View::Pending => {
                call.rests_on(self.overlay.newest_batch());
                number(self.entries())
            }
        }
    }

    /// Number of entries that the table will have once everything pending is in it; more, unless
    /// [`Engine::entries_are_known`]. Worked out when it is asked for, so that a SET need not find out whether it
    /// replaces something.
    pub(super) fn entries(&mut self) -> usize {
        self.overlay.count(&self.table)
    }

    /// Whether no flush of a prefix is under way: what such a one covers is known when it has been swept.
    pub(super) fn entries_are_known(&self) -> bool {
        !self.overlay.flushes().any_of_a_prefix() && !self.table.sweeping_a_prefix()
    }
}

/// A value as it is told to clients.
pub(super) fn value(entry: &Entry) -> Reply<'_> {
    Reply::Value(stored(entry))
}

fn stored(entry: &Entry) -> StoredValue<'_> {
    StoredValue { bytes: entry.value(), version: entry.version(), flags: entry.flags() }
}

/// A number of things as it is told to clients.
pub(super) fn number(of: usize) -> Reply<'static> {
    Reply::Number(i64::try_from(of).unwrap_or(i64::MAX))
}
