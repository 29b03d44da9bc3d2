//! The commands that change something.
//!
//! They see everything pending, whatever the call's view: they are evaluated in the order in which they will be
//! durable. Each builds the one [`Entry`] that goes to `record`, into the overlay and, on commit, into the table.

use super::reads::{number, value};
use super::{Call, Engine};
use crate::command::{Absent, Condition, End, ErrorCode, Expiry, NewCounter, NewEntry, NewValue, Reply, SetOptions};
use crate::decimal;
use crate::mutation::{Key, Mutation, PICKLED, Value};
use crate::table::{Entry, Probe};
use crate::timeline::Time;

impl Engine {
    pub(super) fn set(
        &mut self,
        call: &mut Call<'_>,
        key: Key<'_>,
        value: NewValue<'_>,
        options: SetOptions,
    ) -> Reply<'static> {
        let deadline = match deadline(options.expiry, call.time) {
            Ok(deadline) => deadline,
            Err(refusal) => return refusal,
        };
        let probe = self.table.probe(key);
        // Without a condition nothing is looked up: what is there makes no difference.
        if options.condition != Condition::Always {
            let present = self.present(call, probe).map(Entry::version);
            match (options.condition, present) {
                (Condition::Absent, Some(_)) => return Reply::Exists,
                (Condition::Present | Condition::Version(_), None) => return Reply::Miss,
                (Condition::Version(wanted), Some(version)) if wanted != version => return Reply::Conflict(version),
                _ => {}
            }
        }
        let [bytes, replacement, after] = value.parts();
        let value = Value { bytes, flags: options.flags, deadline };
        let entry = Entry::joined(self.next_version, key, &value, [replacement, after]);
        Reply::Stored(self.put(call, probe.hash, entry))
    }

    pub(super) fn set_many(&mut self, call: &mut Call<'_>, pairs: &[(Key<'_>, &[u8])]) -> Reply<'static> {
        let entries = pairs.iter().map(|&(key, value)| NewEntry { key, value, flags: 0 });
        self.set_all(call, entries, 0)
    }

    pub(super) fn set_entries(
        &mut self,
        call: &mut Call<'_>,
        entries: &[NewEntry<'_>],
        expiry: Expiry,
    ) -> Reply<'static> {
        match deadline(expiry, call.time) {
            Ok(deadline) => self.set_all(call, entries.iter().copied(), deadline),
            Err(refusal) => refusal,
        }
    }

    /// Where a key comes twice both values are recorded, and the later has the higher version.
    fn set_all<'n>(
        &mut self,
        call: &mut Call<'_>,
        entries: impl Iterator<Item = NewEntry<'n>>,
        deadline: u64,
    ) -> Reply<'static> {
        let mut stored = 0;
        for NewEntry { key, value: bytes, flags } in entries {
            let probe = self.table.probe(key);
            let entry = Entry::new(self.next_version, key, &Value { bytes, flags, deadline });
            stored = self.put(call, probe.hash, entry);
        }
        Reply::Stored(stored)
    }

    /// A key named twice is removed, and counted, once.
    pub(super) fn delete(&mut self, call: &mut Call<'_>, keys: &[Key<'_>]) -> Reply<'static> {
        let mut removed = 0;
        for &key in keys {
            let probe = self.table.probe(key);
            if self.present(call, probe).is_some() {
                self.remove(call, probe);
                self.overlay.index(&self.table);
                removed += 1;
            }
        }
        Reply::Number(removed)
    }

    /// Removes a key that still has this version.
    pub(super) fn delete_if(&mut self, call: &mut Call<'_>, key: Key<'_>, version: u64) -> Reply<'static> {
        let probe = self.table.probe(key);
        match self.present(call, probe).map(Entry::version) {
            None => Reply::Miss,
            Some(held) if held != version => Reply::Conflict(held),
            Some(_) => {
                self.remove(call, probe);
                Reply::Done
            }
        }
    }

    pub(super) fn get_delete(&mut self, call: &mut Call<'_>, key: Key<'_>) -> Reply<'_> {
        let probe = self.table.probe(key);
        let is_present = self.present(call, probe).is_some();
        self.lookups.count(is_present);
        if !is_present {
            return Reply::Miss;
        }
        // Neither place gives the value up before the removal is durable, so that the reply can borrow it.
        let pending = self.overlay.position(probe);
        self.remove(call, probe);
        let removed = match pending {
            Some(position) => self.overlay.at(position),
            None => self.table.get(probe),
        };
        removed.map_or(Reply::Miss, value)
    }

    /// What makes a counter has its options; one that is there keeps its flags and its deadline.
    pub(super) fn increment(
        &mut self,
        call: &mut Call<'_>,
        key: Key<'_>,
        delta: i64,
        absent: Absent,
    ) -> Reply<'static> {
        let probe = self.table.probe(key);
        let (augend, flags, deadline) = match (self.present(call, probe), absent) {
            (Some(entry), _) if entry.flags() & PICKLED != 0 => return wrong_type("INCR"),
            (Some(entry), _) => (decimal::parse_i64(entry.value()), entry.flags(), entry.deadline()),
            (None, Absent::Miss) => return Reply::Miss,
            (None, Absent::Make(NewCounter { initial, expiry, flags })) => match deadline(expiry, call.time) {
                Ok(deadline) => (Some(initial), flags, deadline),
                Err(refusal) => return refusal,
            },
        };
        let Some(augend) = augend else {
            let message = "the value is no decimal integer of 64 bits without '+', spaces and leading zeros";
            return Reply::Error(ErrorCode::NotInteger, message.into());
        };
        let Some(sum) = augend.checked_add(delta) else {
            let message = "the sum lies outside -9223372036854775808 to 9223372036854775807";
            return Reply::Error(ErrorCode::Overflow, message.into());
        };
        let mut text = itoa::Buffer::new();
        let value = Value { bytes: text.format(sum).as_bytes(), flags, deadline };
        self.put(call, probe.hash, Entry::new(self.next_version, key, &value));
        Reply::Number(sum)
    }

    pub(super) fn extend(&mut self, call: &mut Call<'_>, key: Key<'_>, bytes: &[u8], end: End) -> Reply<'static> {
        let probe = self.table.probe(key);
        let Some(held) = self.present(call, probe) else { return Reply::Miss };
        if held.flags() & PICKLED != 0 {
            return wrong_type(match end {
                End::Front => "PREPEND",
                End::Back => "APPEND",
            });
        }
        let length = held.value().len() + bytes.len();
        let limit = self.limits.max_value;
        if length > limit {
            let message = format!("the value would be {length} bytes long; the limit is {limit}");
            return Reply::Error(ErrorCode::TooBig, message.into());
        }
        let (front, back) = match end {
            End::Front => (bytes, held.value()),
            End::Back => (held.value(), bytes),
        };
        let value = Value { bytes: front, flags: held.flags(), deadline: held.deadline() };
        let entry = Entry::joined(self.next_version, key, &value, [back, b""]);
        self.put(call, probe.hash, entry);
        number(length)
    }

    pub(super) fn touch(&mut self, call: &mut Call<'_>, key: Key<'_>, expiry: Expiry) -> Reply<'static> {
        match self.store_again(call, self.table.probe(key), expiry) {
            Err(refusal) => refusal,
            Ok(()) => Reply::Done,
        }
    }

    /// The version that is told is the one that the new expiry has.
    pub(super) fn get_touch(&mut self, call: &mut Call<'_>, key: Key<'_>, expiry: Expiry) -> Reply<'_> {
        let probe = self.table.probe(key);
        if let Err(refusal) = self.store_again(call, probe, expiry) {
            self.lookups.count(refusal != Reply::Miss);
            return refusal;
        }
        self.lookups.count(true);
        self.overlay.last_entry().map_or(Reply::Miss, value)
    }

    /// Stores what a key has once more, with another expiry; or tells why not.
    fn store_again(&mut self, call: &mut Call<'_>, probe: Probe<'_>, expiry: Expiry) -> Result<(), Reply<'static>> {
        let deadline = deadline(expiry, call.time)?;
        let held = self.present(call, probe).ok_or(Reply::Miss)?;
        let value = Value { bytes: held.value(), flags: held.flags(), deadline };
        let entry = Entry::new(self.next_version, probe.key, &value);
        self.put(call, probe.hash, entry);
        if self.touched.back().is_none_or(|(batch, _)| *batch != self.forming) {
            self.touched.push_back((self.forming, call.now));
        }
        Ok(())
    }

    /// Recorded even where nothing matches: what it hides is for the log to say, not for one moment's count. As
    /// with COUNT, an entry that has expired but was not removed yet counts. What can't be counted without passing
    /// over the table is counted by the sweep, for which the answer then waits.
    pub(super) fn flush(&mut self, call: &mut Call<'_>, prefix: Option<&[u8]>) -> Reply<'static> {
        let known = prefix.is_none() && self.entries_are_known();
        let removed = if known { self.entries() } else { 0 };
        let version = self.take_version(call);
        (call.record)(version, &Mutation::Flush { prefix });
        self.overlay.push_flush(self.forming, version, prefix);
        call.sweep = (!known).then_some(version);
        number(removed)
    }

    /// The entry of a key that is there and has not expired, with everything pending applied.
    fn present(&self, call: &mut Call<'_>, probe: Probe<'_>) -> Option<&Entry> {
        self.held(call, probe).filter(|entry| !entry.is_expired(call.now))
    }

    /// Records an entry and makes it pending. Returns its version, which must be the next one.
    fn put(&mut self, call: &mut Call<'_>, hash: u64, entry: Entry) -> u64 {
        let version = self.take_version(call);
        debug_assert_eq!(entry.version(), version);
        (call.record)(version, &entry.mutation());
        self.overlay.push(self.forming, hash, entry);
        version
    }

    /// Records the removal of a key that is there, and makes it pending.
    fn remove(&mut self, call: &mut Call<'_>, probe: Probe<'_>) {
        let version = self.take_version(call);
        (call.record)(version, &Mutation::Remove { key: probe.key });
        self.overlay.push(self.forming, probe.hash, Entry::removal(version, probe.key));
    }

    /// The next version. From here on the call rests on the forming batch.
    fn take_version(&mut self, call: &mut Call<'_>) -> u64 {
        call.rests_on(Some(self.forming));
        let version = self.next_version;
        self.next_version += 1;
        version
    }
}

/// The T at which something expires, 0 for never; or the refusal.
fn deadline(expiry: Expiry, time: Time) -> Result<u64, Reply<'static>> {
    let deadline = match expiry {
        Expiry::Never => Some(0),
        Expiry::In(milliseconds) => time.now.checked_add(milliseconds),
        // A date long past is never to be mistaken for "never".
        Expiry::At(date) => Some(time.from_wall(date).max(1)),
    };
    deadline.filter(|&deadline| i64::try_from(deadline).is_ok()).ok_or_else(|| {
        Reply::Error(ErrorCode::BadArgument, "the expiry lies beyond 9223372036854775807 ms of Unix time".into())
    })
}

fn wrong_type(verb: &'static str) -> Reply<'static> {
    Reply::Error(ErrorCode::WrongType, format!("{verb} can't be applied to a pickled value").into())
}
