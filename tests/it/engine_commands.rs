//! Each command and each of its errors, asked as a client would: a line of words, a frame each.

use kvd::command::{Command, Limits, SetOptions};
use kvd::engine::{BatchId, Engine, MemoryLimit, View};
use kvd::mutation::{Key, Mutation, PICKLED, Space};
use kvd::table::{Departure, Table};
use kvd::wire::{Frame, ReplyFrames, frames};

const LIMITS: Limits = Limits { max_value: 64 };

/// A store and a clock that stands still until it is moved.
struct Store {
    engine: Engine,
    now: u64,
    /// The mutations recorded so far, told shortly.
    log: Vec<String>,
    /// The flushes that were swept, and how many entries each removed.
    swept: Vec<(u64, u64)>,
}

impl Store {
    fn new() -> Self {
        Store { engine: Engine::new(Table::new(7), 1, LIMITS), now: 1_000, log: Vec::new(), swept: Vec::new() }
    }

    /// Asks under a view and returns the reply, in words, and what it waits for.
    fn look(&mut self, view: View, line: &str) -> (String, Option<BatchId>) {
        let words: Vec<&[u8]> = line.split(' ').map(|word| if word == "''" { "" } else { word }.as_bytes()).collect();
        let command = frames::decode(&words, &LIMITS).unwrap();
        self.evaluate(view, &command)
    }

    fn evaluate(&mut self, view: View, command: &Command<'_>) -> (String, Option<BatchId>) {
        let log = &mut self.log;
        let mut record = |version: u64, mutation: &Mutation<'_>| {
            log.push(match mutation {
                Mutation::Put { key, value } => format!(
                    "{version} put {} {} {} {}",
                    key.bytes.escape_ascii(),
                    value.bytes.escape_ascii(),
                    value.flags,
                    value.deadline
                ),
                Mutation::Remove { key } | Mutation::Evict { key } => {
                    format!("{version} remove {}", key.bytes.escape_ascii())
                }
                Mutation::Flush { prefix: None } => format!("{version} flush"),
                Mutation::Flush { prefix: Some(prefix) } => format!("{version} flush {}", prefix.escape_ascii()),
            });
        };
        let evaluation = self.engine.evaluate(command, self.now, view, &mut record);
        if let Some(version) = evaluation.sweep {
            return (format!("LATER {version}"), evaluation.after);
        }
        let mut reply = ReplyFrames::default();
        frames::encode(&evaluation.reply, &mut reply);
        let words: Vec<String> = reply
            .parcel()
            .map(|frame| match frame {
                Frame::Small(bytes) => bytes.escape_ascii().to_string(),
                Frame::Large(bytes) => bytes.escape_ascii().to_string(),
            })
            .collect();
        (words.join(" "), evaluation.after)
    }

    /// Asks with everything pending in view. An error is shortened to its code.
    fn ask(&mut self, line: &str) -> String {
        let reply = self.look(View::Pending, line).0;
        match reply.split(' ').collect::<Vec<_>>()[..] {
            ["ERR", code, ..] => format!("ERR {code}"),
            _ => reply,
        }
    }

    /// The mutations recorded since this was last asked.
    fn recorded(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// Makes everything so far durable, and sweeps what was flushed.
    fn commit(&mut self) {
        let batch = self.engine.close_batch();
        self.engine.commit(batch, &mut |_, _| ());
        while self.engine.table().sweeping().is_some() {
            let swept = self.engine.sweep(100, &mut |_, _| ());
            self.swept.extend(swept.map(|swept| (swept.version, swept.removed)));
        }
    }
}

#[test]
fn set_and_get() {
    let mut store = Store::new();
    assert_eq!(store.ask("GET k"), "MISS");
    assert_eq!(store.ask("SET k v FLAGS 5"), "OK 1");
    assert_eq!(store.ask("GET k"), "OK v 1 5");
    assert_eq!(store.ask("SET k ''"), "OK 2");
    assert_eq!(store.ask("GET k"), "OK  2 0");
    assert_eq!(store.ask("SET k v PICKLED FLAGS 1"), "OK 3");
    assert_eq!(store.ask("GET k"), "OK v 3 2147483649");
    assert_eq!(store.recorded(), ["1 put k v 5 0", "2 put k  0 0", "3 put k v 2147483649 0"]);
    assert_eq!(store.engine.next_version(), 4);
}

#[test]
fn set_under_conditions() {
    let mut store = Store::new();
    assert_eq!(store.ask("SET k v XX"), "MISS");
    assert_eq!(store.ask("SET k v IF 1"), "MISS");
    assert_eq!(store.ask("SET k v NX"), "OK 1");
    assert_eq!(store.ask("SET k v NX"), "EXISTS");
    assert_eq!(store.ask("SET k v IF 9"), "CONFLICT 1");
    assert_eq!(store.ask("SET k v IF 1"), "OK 2");
    assert_eq!(store.ask("SET k v IF 1"), "CONFLICT 2");
    assert_eq!(store.ask("SET k v XX"), "OK 3");
    assert_eq!(store.ask("DEL k"), "OK 1");
    assert_eq!(store.ask("SET k v IF 3"), "MISS");
    assert_eq!(store.recorded().len(), 4, "what is refused is not recorded");
}

#[test]
fn a_key_expires_at_its_deadline() {
    let mut store = Store::new();
    assert_eq!(store.ask("SET k 1 TTL 10"), "OK 1");
    assert_eq!(store.ask("TTL k"), "OK 10");
    store.now += 9;
    assert_eq!(store.ask("TTL k"), "OK 1");
    assert_eq!(store.ask("EXISTS k"), "OK 1");
    store.now += 1;
    for (line, reply) in [
        ("GET k", "MISS"),
        ("TTL k", "MISS"),
        ("GETDEL k", "MISS"),
        ("EXISTS k", "OK 0"),
        ("DEL k", "OK 0"),
        ("MGET k", "OK 0 "),
        ("TOUCH k 5", "MISS"),
        ("APPEND k x", "MISS"),
        ("SET k v XX", "MISS"),
        ("SET k v IF 1", "MISS"),
        ("SCAN 0", "OK 0"),
        ("COUNT", "OK 1"),
        ("INCR k", "OK 1"),
        ("TTL k", "OK -1"),
    ] {
        assert_eq!(store.ask(line), reply, "{line}");
        store.commit();
    }
    assert_eq!(store.recorded(), ["1 put k 1 0 1010", "2 put k 1 0 0"]);
}

#[test]
fn set_replaces_deadline_and_flags() {
    let mut store = Store::new();
    store.ask("SET k v TTL 10 FLAGS 3");
    assert_eq!(store.ask("SET k v"), "OK 2");
    assert_eq!(store.ask("TTL k"), "OK -1");
    assert_eq!(store.ask("GET k"), "OK v 2 0");
}

#[test]
fn a_deadline_in_the_past_or_out_of_range() {
    let mut store = Store::new();
    assert_eq!(store.ask("SET k v AT 999"), "OK 1");
    assert_eq!(store.ask("GET k"), "MISS");
    assert_eq!(store.ask("SET k v AT 0"), "OK 2");
    assert_eq!(store.ask("GET k"), "MISS");
    assert_eq!(store.ask("SET k v AT 1001"), "OK 3");
    assert_eq!(store.ask("TTL k"), "OK 1");
    assert_eq!(store.ask("SET k v AT 9223372036854775807"), "OK 4");
    assert_eq!(store.ask("SET k v TTL 9223372036854775807"), "ERR BADARG");
    assert_eq!(store.ask("TOUCH k 9223372036854775807"), "ERR BADARG");
    assert_eq!(store.recorded().len(), 4);
}

#[test]
fn del_exists_and_mget() {
    let mut store = Store::new();
    assert_eq!(store.ask("MSET a 1 b 2 c 3"), "OK 3");
    assert_eq!(store.ask("EXISTS a a x"), "OK 2");
    assert_eq!(store.ask("MGET a x b"), "OK 1 1 0  1 2");
    assert_eq!(store.ask("DEL a a x b"), "OK 2");
    assert_eq!(store.ask("MGET a b c"), "OK 0  0  1 3");
    assert_eq!(store.recorded()[3..], ["4 remove a", "5 remove b"]);
}

#[test]
fn one_mget_is_at_most_one_message() {
    let mut store = Store::new();
    let (most, key) = (LIMITS.max_message(), Key::bytes(b"k"));
    let value = vec![b'v'; most / 10];
    store.evaluate(View::Pending, &Command::Set { key, value: (&value[..]).into(), options: SetOptions::default() });
    let times = |times| Command::GetMany { keys: vec![key; times] };
    assert!(store.evaluate(View::Pending, &times(10)).0.starts_with("OK "));
    let (reply, after) = store.evaluate(View::Pending, &times(11));
    assert!(reply.starts_with("ERR TOOBIG ") && reply.contains(&most.to_string()), "{reply:.100}");
    assert!(after.is_some(), "it rests on what it saw");
}

#[test]
fn in_mset_the_later_pair_wins() {
    let mut store = Store::new();
    assert_eq!(store.ask("MSET a 1 b 2 a 3"), "OK 3");
    assert_eq!(store.ask("GET a"), "OK 3 3 0");
    assert_eq!(store.ask("COUNT"), "OK 2");
    store.commit();
    assert_eq!(store.ask("GET a"), "OK 3 3 0");
}

#[test]
fn incr_adds_to_decimal_integers_only() {
    let mut store = Store::new();
    assert_eq!(store.ask("INCR n"), "OK 1");
    assert_eq!(store.ask("INCR n 41"), "OK 42");
    assert_eq!(store.ask("INCR n -50"), "OK -8");
    assert_eq!(store.ask("GET n"), "OK -8 3 0");
    for value in ["x", "+1", "01", "1.0", "-", "-0", "''", "9223372036854775808"] {
        store.ask(&format!("SET n {value}"));
        assert_eq!(store.ask("INCR n"), "ERR NOTINT", "{value}");
    }
    store.ask("SET n 9223372036854775807");
    assert_eq!(store.ask("INCR n"), "ERR OVERFLOW");
    assert_eq!(store.ask("INCR n -1"), "OK 9223372036854775806");
    store.ask("SET n -9223372036854775808");
    assert_eq!(store.ask("INCR n -1"), "ERR OVERFLOW");
    store.ask("SET n 1 PICKLED");
    assert_eq!(store.ask("INCR n"), "ERR WRONGTYPE");
}

#[test]
fn incr_append_and_prepend_keep_flags_and_deadline() {
    let mut store = Store::new();
    store.ask("SET n 1 TTL 10 FLAGS 7");
    store.now += 4;
    store.ask("INCR n");
    assert_eq!(store.ask("APPEND n 0"), "OK 2");
    assert_eq!(store.ask("PREPEND n 1"), "OK 3");
    assert_eq!(store.ask("GET n"), "OK 120 4 7");
    assert_eq!(store.ask("TTL n"), "OK 6");
}

#[test]
fn append_and_prepend_refuse() {
    let mut store = Store::new();
    assert_eq!(store.ask("APPEND k x"), "MISS");
    assert_eq!(store.ask("PREPEND k x"), "MISS");
    store.ask(&format!("SET k {}", "x".repeat(63)));
    assert_eq!(store.ask("APPEND k y"), "OK 64");
    assert_eq!(store.ask("APPEND k y"), "ERR TOOBIG");
    assert_eq!(store.ask("PREPEND k y"), "ERR TOOBIG");
    assert_eq!(store.ask("APPEND k ''"), "OK 64");
    store.ask("SET k v PICKLED");
    assert_eq!(store.ask("APPEND k x"), "ERR WRONGTYPE");
    assert_eq!(store.ask("PREPEND k x"), "ERR WRONGTYPE");
}

#[test]
fn touch_gives_a_new_version() {
    let mut store = Store::new();
    assert_eq!(store.ask("TOUCH k 5"), "MISS");
    store.ask("SET k v FLAGS 3");
    assert_eq!(store.ask("TOUCH k 5"), "OK");
    assert_eq!(store.ask("GET k"), "OK v 2 3");
    assert_eq!(store.ask("TTL k"), "OK 5");
    assert_eq!(store.ask("TOUCH k 0"), "OK");
    assert_eq!(store.ask("TTL k"), "OK -1");
    assert_eq!(store.recorded()[1..], ["2 put k v 3 1005", "3 put k v 3 0"]);
}

#[test]
fn getdel_returns_what_it_removes() {
    let mut store = Store::new();
    store.ask("SET k v FLAGS 3");
    assert_eq!(store.ask("GETDEL k"), "OK v 1 3", "from the overlay");
    assert_eq!(store.ask("GETDEL k"), "MISS");
    store.ask("SET k w");
    store.commit();
    assert_eq!(store.ask("GETDEL k"), "OK w 3 0", "from the table");
    store.commit();
    assert_eq!(store.ask("GET k"), "MISS");
    assert_eq!(store.ask("COUNT"), "OK 0");
}

#[test]
fn flush_hides_what_is_durable_and_what_is_pending() {
    let mut store = Store::new();
    store.ask("MSET a1 x a2 x b1 x");
    store.commit();
    store.ask("MSET a2 y a3 y");
    assert_eq!(store.ask("FLUSH PREFIX a"), "LATER 6");
    assert_eq!(store.ask("MGET a1 a2 a3 b1"), "OK 0  0  0  1 x");
    assert_eq!(store.ask("COUNT"), "OK 4", "nobody has looked yet what the flush covers");
    store.ask("SET a1 z");
    assert_eq!(store.ask("FLUSH PREFIX b"), "LATER 8");
    assert_eq!(store.ask("FLUSH"), "LATER 9");
    assert_eq!(store.ask("COUNT"), "OK 0");
    assert_eq!(store.ask("FLUSH"), "LATER 10");
    assert_eq!(store.look(View::Durable, "COUNT").0, "OK 3");
    store.commit();
    assert!(store.engine.table().is_empty());
    assert_eq!(store.swept, [(6, 3), (8, 1), (9, 1), (10, 0)]);
    assert_eq!(store.recorded().len(), 5 + 1 + 4, "a flush is recorded even if nothing matched");
}

#[test]
fn a_flush_of_everything_knows_its_number_at_once() {
    let mut store = Store::new();
    store.ask("MSET a 1 b 2 c 3");
    store.commit();
    store.ask("MSET c 4 d 5");
    store.ask("DEL a");
    assert_eq!(store.ask("FLUSH"), "OK 3");
    store.ask("SET e 6");
    assert_eq!(store.ask("COUNT"), "OK 1");
    assert_eq!(store.ask("FLUSH"), "OK 1");
    assert_eq!(store.ask("FLUSH"), "OK 0");
    store.ask("SET f 7");
    store.commit();
    assert_eq!(store.ask("COUNT"), "OK 1");
    assert_eq!(store.swept, [(7, 3), (9, 1), (10, 0)], "and the sweep finds as many");
}

#[test]
fn what_has_expired_is_removed_without_a_record() {
    let mut store = Store::new();
    store.ask("SET a 1 TTL 5");
    store.ask("SET b 2 TTL 50000");
    store.ask("SET c 3");
    store.commit();
    store.recorded();
    store.now += 5;
    assert_eq!(store.ask("COUNT"), "OK 3");
    let mut gone = Vec::new();
    while store.engine.expire(store.now, 100, &mut |entry, why| gone.push((entry.version(), why))) {}
    assert_eq!(gone, [(1, Departure::Expired)]);
    assert_eq!(store.ask("COUNT"), "OK 2");
    assert_eq!(store.recorded(), [""; 0]);
}

#[test]
fn a_prefix_flush_spares_python_keys() {
    let mut store = Store::new();
    let key = Key { space: Space::Python, bytes: b"a" };
    let options = SetOptions { flags: PICKLED, ..SetOptions::default() };
    store.evaluate(View::Pending, &Command::Set { key, value: b"v".into(), options });
    assert_eq!(store.ask("GET a"), "MISS");
    assert_eq!(store.ask("SCAN 0"), "OK 0");
    assert_eq!(store.ask("FLUSH PREFIX ''"), "LATER 2");
    store.commit();
    assert_eq!(store.swept, [(2, 0)]);
    assert_eq!(store.ask("COUNT"), "OK 1");
    assert_eq!(store.ask("FLUSH"), "OK 1");
}

#[test]
fn a_durable_read_sees_only_what_was_committed() {
    let mut store = Store::new();
    assert_eq!(store.look(View::Durable, "SET k 1"), ("OK 1".into(), Some(1)));
    assert_eq!(store.engine.close_batch(), 1);
    assert_eq!(store.look(View::Durable, "INCR k"), ("OK 2".into(), Some(2)));
    assert_eq!(store.engine.close_batch(), 2);
    assert_eq!(store.look(View::Durable, "DEL k"), ("OK 1".into(), Some(3)));
    assert_eq!(store.look(View::Durable, "GET k"), ("MISS".into(), None));
    assert_eq!(store.look(View::Pending, "GET k"), ("MISS".into(), Some(3)));
    store.engine.commit(1, &mut |_, _| ());
    assert_eq!(store.look(View::Durable, "GET k"), ("OK 1 1 0".into(), None));
    store.engine.commit(2, &mut |_, _| ());
    assert_eq!(store.look(View::Durable, "GET k"), ("OK 2 2 0".into(), None));
    assert_eq!(store.engine.close_batch(), 3);
    store.engine.commit(3, &mut |_, _| ());
    assert_eq!(store.look(View::Pending, "GET k"), ("MISS".into(), None));
}

#[test]
fn what_a_pending_touch_keeps_alive_is_not_seen_expired() {
    let mut store = Store::new();
    store.ask("SET k v TTL 100");
    store.ask("SET other v TTL 100");
    store.commit();
    assert_eq!(store.look(View::Durable, "TOUCH k 5000").0, "OK");
    let batch = store.engine.close_batch();
    store.now += 200;
    // In the table it has expired. Were that told, the key would be back as soon as the batch is durable.
    for (line, alive) in [("GET k", "OK v 3 0"), ("EXISTS k", "OK 1"), ("TTL k", "OK 4800"), ("SCAN 0", "OK 0 k")] {
        assert_eq!(store.look(View::Durable, line), (alive.into(), Some(batch)), "{line}");
    }
    assert_eq!(store.look(View::Durable, "GET other"), ("MISS".into(), None), "nobody keeps that alive");
    assert!(!store.engine.expire(store.now, 10_000, &mut |_, _| ()));
    assert_eq!(store.look(View::Durable, "GET k").0, "OK v 3 0", "nor is it removed meanwhile");
    store.engine.commit(batch, &mut |_, _| ());
    assert_eq!(store.look(View::Durable, "GET k"), ("OK v 3 0".into(), None));
}

#[test]
fn refusals_and_absences_wait_for_what_they_read() {
    let mut store = Store::new();
    store.ask("MSET old 1 gone 1");
    store.commit();
    assert_eq!(store.look(View::Durable, "SET new x"), ("OK 3".into(), Some(2)));
    store.engine.close_batch();
    assert_eq!(store.look(View::Durable, "DEL gone"), ("OK 1".into(), Some(3)));
    store.engine.close_batch();
    for (line, reply, after) in [
        ("SET new y NX", "EXISTS", Some(2)),
        ("SET new y IF 1", "CONFLICT 3", Some(2)),
        ("SET gone y XX", "MISS", Some(3)),
        ("DEL gone", "OK 0", Some(3)),
        ("DEL never gone", "OK 0", Some(3)),
        ("GETDEL gone", "MISS", Some(3)),
        ("SET old y NX", "EXISTS", None),
        ("SET never y XX", "MISS", None),
        ("DEL never", "OK 0", None),
    ] {
        assert_eq!(store.look(View::Durable, line), (reply.into(), after), "{line}");
    }
    assert_eq!(store.look(View::Pending, "EXISTS old new"), ("OK 2".into(), Some(2)));
    assert_eq!(store.look(View::Pending, "EXISTS old"), ("OK 1".into(), None));
    assert_eq!(store.look(View::Pending, "COUNT"), ("OK 2".into(), Some(3)));
    assert_eq!(store.look(View::Durable, "COUNT"), ("OK 2".into(), None));
    let (reply, after) = store.look(View::Pending, "INCR new");
    assert!(reply.starts_with("ERR NOTINT") && after == Some(2));
    assert_eq!(store.look(View::Durable, "FLUSH PREFIX ne"), ("LATER 5".into(), Some(4)));
    assert_eq!(store.look(View::Pending, "GET never"), ("MISS".into(), Some(4)), "hidden by the flush, if by anything");
}

#[test]
fn a_refusal_for_want_of_memory_waits_for_what_takes_it() {
    let mut store = Store::new();
    let (room, value) = (300, "v".repeat(60));
    let bytes = store.engine.table().memory() + room;
    store.engine = Engine::new(Table::new(7), 1, LIMITS).with_memory_limit(MemoryLimit { bytes, evicts: false }, 1);
    let set = |key: &str| format!("SET {key} {value}");
    while store.look(View::Durable, &set("pending")).0.starts_with("OK") {}
    // What is refused was refused because of what is pending, and that may never have been.
    for line in [&*set("other"), "INCR n", "TOUCH pending 5000"] {
        let (reply, after) = store.look(View::Durable, line);
        assert!(reply.starts_with("ERR NOMEM") && reply.contains("--eviction"), "{line}: {reply}");
        assert_eq!(after, Some(1), "{line}");
    }
    store.commit();
    // Each put of the one key took the place of the one before.
    assert!(store.look(View::Durable, "SET small v").0.starts_with("OK"));
    store.commit();
    while store.look(View::Durable, &set("more")).0.starts_with("OK") {
        store.commit();
    }
    assert_eq!(store.look(View::Durable, &set("more")).1, None, "nothing is pending");
}

#[test]
fn a_refusal_of_what_is_more_than_all_memory_waits_for_what_it_would_be_added_to() {
    let mut store = Store::new();
    let limit = MemoryLimit { bytes: 90, evicts: true };
    store.engine = Engine::new(Table::new(7), 1, LIMITS).with_memory_limit(limit, 1);
    assert_eq!(store.look(View::Durable, &format!("SET k {}", "v".repeat(30))).1, Some(1));
    let (reply, after) = store.look(View::Durable, &format!("APPEND k {}", "v".repeat(30)));
    assert!(reply.starts_with("ERR NOMEM") && after == Some(1), "{reply}, {after:?}");
}

#[test]
fn a_refusal_for_want_of_room_waits_for_what_is_pending() {
    let mut store = Store::new();
    store.ask("SET k 1");
    store.engine.set_full(true);
    let (reply, after) = store.look(View::Durable, "SET other 1");
    assert!(reply.starts_with("ERR NOSPACE") && after == Some(1), "{reply}, {after:?}");
    store.commit();
    assert_eq!(store.look(View::Durable, "SET other 1").1, None);
}

#[test]
fn a_refusal_forgets_everything_pending_and_no_version_returns() {
    let mut store = Store::new();
    store.ask("SET k 1");
    store.commit();
    store.ask("SET k 2");
    let refused = store.engine.close_batch();
    store.ask("FLUSH");
    store.engine.refuse();
    assert_eq!(store.look(View::Pending, "GET k"), ("OK 1 1 0".into(), None));
    assert_eq!(store.ask("COUNT"), "OK 1");
    assert_eq!(store.look(View::Pending, "SET k 3"), ("OK 4".into(), Some(refused + 2)));
}

#[test]
fn a_full_store_takes_removals_only() {
    let mut store = Store::new();
    store.ask("MSET a 1 b 2 c 3");
    store.commit();
    store.recorded();
    store.engine.set_full(true);
    for line in ["SET a 2", "MSET a 2", "INCR a", "APPEND a 2", "PREPEND a 2", "TOUCH a 5"] {
        assert_eq!(store.ask(line), "ERR NOSPACE", "{line}");
    }
    assert_eq!(store.recorded(), [""; 0]);
    assert_eq!(store.ask("GET a"), "OK 1 1 0");
    assert_eq!(store.ask("DEL a"), "OK 1");
    assert_eq!(store.ask("GETDEL b"), "OK 2 2 0");
    assert_eq!(store.ask("FLUSH"), "OK 1");
    store.engine.set_full(false);
    assert_eq!(store.ask("SET a 2"), "OK 7");
}

#[test]
fn what_is_not_about_keys_is_answered_elsewhere() {
    let mut store = Store::new();
    for line in ["PING", "VERSION", "STATS", "SYNC", "COMPACT"] {
        assert_eq!(store.ask(line), "ERR INTERNAL", "{line}");
    }
}
