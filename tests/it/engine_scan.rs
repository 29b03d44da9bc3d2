//! SCAN returns every key that is present throughout, whatever comes and goes between its pages.

use kvd::command::{Command, Limits, Reply, SetOptions};
use kvd::engine::{Engine, View};
use kvd::mutation::{Key, Space};
use kvd::table::Table;
use std::collections::BTreeSet;

fn engine() -> Engine {
    Engine::new(Table::new(11), 1, Limits::default())
}

fn ask<'e>(engine: &'e mut Engine, command: &Command<'_>, view: View) -> Reply<'e> {
    engine.evaluate(command, 1_000, view, &mut |_, _| ()).reply
}

fn set(engine: &mut Engine, key: &str) {
    let key = Key::bytes(key.as_bytes());
    ask(engine, &Command::Set { key, value: b"v".into(), options: SetOptions::default() }, View::Pending);
}

fn delete(engine: &mut Engine, key: &str) {
    ask(engine, &Command::Delete { keys: vec![Key::bytes(key.as_bytes())] }, View::Pending);
}

fn commit(engine: &mut Engine) {
    let batch = engine.close_batch();
    engine.commit(batch, &mut |_, _| ());
}

/// One page: where to go on, and its keys.
fn page(engine: &mut Engine, cursor: u64, prefix: &str, count: usize, view: View) -> (u64, Vec<String>) {
    match ask(engine, &Command::Scan { cursor, prefix: prefix.as_bytes(), count }, view) {
        Reply::Page { cursor, keys } => {
            (cursor, keys.iter().map(|key| String::from_utf8(key.to_vec()).unwrap()).collect())
        }
        other => panic!("no page: {other:?}"),
    }
}

/// Every page, with `between` called after each.
fn walk(
    engine: &mut Engine,
    prefix: &str,
    count: usize,
    view: View,
    mut between: impl FnMut(&mut Engine),
) -> Vec<String> {
    let (mut all, mut met) = (Vec::new(), BTreeSet::new());
    let mut cursor = 0;
    loop {
        let (next, keys) = page(engine, cursor, prefix, count, view);
        assert!(keys.len() <= count);
        all.extend(keys);
        if next == 0 {
            return all;
        }
        assert!(next < 1 << 53 && met.insert(next), "every page gets on");
        cursor = next;
        between(engine);
    }
}

#[test]
fn a_rare_prefix_gives_short_pages_rather_than_a_long_wait() {
    let mut engine = engine();
    for n in 0..50_000 {
        set(&mut engine, &format!("key{n}"));
    }
    set(&mut engine, "needle");
    commit(&mut engine);
    let mut pages = [0; 2];
    for (pages, anew) in pages.iter_mut().zip([true, false]) {
        engine.begin_turn();
        let found = walk(&mut engine, "needle", 10, View::Durable, |engine| {
            *pages += 1;
            if anew {
                engine.begin_turn();
            }
        });
        assert_eq!(found, ["needle"]);
    }
    assert_eq!(pages[0], 4, "five pages of 10,000 entries and more");
    assert!(pages[1] > 50, "what all pages of one turn pass over is bounded as well: {}", pages[1]);
}

#[test]
fn pages_of_a_quiet_store_hold_each_key_once() {
    for pending in [false, true] {
        let mut engine = engine();
        for number in 0..600 {
            set(&mut engine, &format!("key:{number}"));
            if number == 300 {
                commit(&mut engine);
            }
        }
        let view = if pending { View::Pending } else { View::Durable };
        if !pending {
            commit(&mut engine);
        }
        for count in [1, 7, 100, 10_000] {
            let keys = walk(&mut engine, "key:", count, view, |_| ());
            assert_eq!(keys.len(), 600, "pending: {pending}, count: {count}");
            assert_eq!(keys.into_iter().collect::<BTreeSet<_>>().len(), 600);
        }
        assert_eq!(walk(&mut engine, "key:9", 7, view, |_| ()).len(), 11);
    }
}

#[test]
fn whoever_is_present_throughout_is_returned() {
    for view in [View::Durable, View::Pending] {
        let mut engine = engine();
        let stays: BTreeSet<String> = (0..600).map(|number| format!("stays:{number}")).collect();
        for key in &stays {
            set(&mut engine, key);
        }
        commit(&mut engine);
        // Between any two pages some keys appear, some go and some are written again, some of it durable, some
        // not; the table grows to many times its size meanwhile.
        let mut turn = 0_usize;
        let keys = walk(&mut engine, "", 10, view, |engine| {
            turn += 1;
            for number in 0..60 {
                set(engine, &format!("comes:{turn}:{number}"));
            }
            for number in 0..20 {
                delete(engine, &format!("comes:{}:{number}", turn - 1));
            }
            set(engine, &format!("stays:{}", turn * 7 % 600));
            if turn.is_multiple_of(3) {
                commit(engine);
            }
        });
        let seen: BTreeSet<String> = keys.iter().cloned().collect();
        assert_eq!(seen.len(), keys.len(), "nor is any key returned twice");
        assert_eq!(stays.difference(&seen).count(), 0, "{view:?}: after {turn} pages");
        assert!(engine.table().len() > 10 * stays.len(), "the table has grown: {}", engine.table().len());
    }
}

#[test]
fn a_page_of_long_keys_is_at_most_one_message() {
    let limits = Limits { max_value: 1 };
    let mut engine = Engine::new(Table::new(11), 1, limits);
    let keys: BTreeSet<String> = (0..60).map(|number| format!("{number:060000}")).collect();
    for (number, key) in keys.iter().enumerate() {
        set(&mut engine, key);
        if number == 30 {
            commit(&mut engine);
        }
    }
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let (next, page) = page(&mut engine, cursor, "", 10_000, View::Pending);
        assert!(page.iter().map(String::len).sum::<usize>() <= limits.max_message());
        assert!(next == 0 || page.len() > 10, "no page is shorter than it has to be");
        seen.extend(page);
        if next == 0 {
            break;
        }
        cursor = next;
    }
    assert_eq!(seen.len(), keys.len());
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), keys);
}

#[test]
fn an_arbitrary_cursor_is_harmless() {
    let mut engine = engine();
    for number in 0..100 {
        set(&mut engine, &format!("key:{number}"));
    }
    for view in [View::Durable, View::Pending] {
        for cursor in [1, 99, 1 << 53, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
            let (next, keys) = page(&mut engine, cursor, "", 10, view);
            assert!(keys.len() <= 10 && next < 1 << 53);
            // It begins somewhere, and the rest of the walk comes to its end.
            let mut cursor = next;
            for turn in 0.. {
                assert!(turn <= 10);
                if cursor == 0 {
                    break;
                }
                cursor = page(&mut engine, cursor, "", 10, view).0;
            }
        }
    }
}

/// A table's order and a client's cursors outlive it: all that they need is the secret.
#[test]
fn a_cursor_is_good_in_every_run_of_a_store_and_in_no_other_store() {
    let walked = |secret| {
        let mut engine = Engine::new(Table::new(secret), 1, Limits::default());
        for number in 0..100 {
            set(&mut engine, &format!("key:{number}"));
        }
        commit(&mut engine);
        let (cursor, first) = page(&mut engine, 0, "", 50, View::Durable);
        (cursor, first, engine)
    };
    let ((cursor, first, _), (again, _, mut later), (other, ..)) = (walked(7), walked(7), walked(8));
    assert_eq!(cursor, again);
    assert_ne!(cursor, other);
    let (_, second) = page(&mut later, cursor, "", 100, View::Durable);
    assert_eq!(first.into_iter().chain(second).collect::<BTreeSet<_>>().len(), 100);
}

/// Keys that had one hash in every store, under the hash that kvd had before: each page returned all of them.
#[test]
fn keys_that_once_collided_are_returned_page_by_page() {
    let mut engine = engine();
    let ends = 0x3f84_d5b5_b547_0917_u64.to_le_bytes();
    let twice = [0xc0ac_29b7_c97c_50dd_u64.to_le_bytes(); 2].concat();
    for number in 0..20_000_u64 {
        let [a, b, ..] = number.to_le_bytes();
        for key in [[&number.to_le_bytes()[..], &ends].concat(), [&[a, b, 0][..], &[7; 8], &twice].concat()] {
            let set = Command::Set { key: Key::bytes(&key), value: b"v"[..].into(), options: SetOptions::default() };
            ask(&mut engine, &set, View::Pending);
        }
    }
    for view in [View::Pending, View::Durable] {
        let (mut cursor, mut met) = (0, 0);
        loop {
            engine.begin_turn();
            let Reply::Page { cursor: next, keys } =
                ask(&mut engine, &Command::Scan { cursor, prefix: b"", count: 100 }, view)
            else {
                panic!("no page")
            };
            assert!(keys.len() <= 100);
            met += keys.len();
            if next == 0 {
                break;
            }
            cursor = next;
        }
        assert_eq!(met, 40_000);
        commit(&mut engine);
    }
}

#[test]
fn a_page_is_bounded_while_much_is_flushed_and_not_yet_swept() {
    let mut engine = engine();
    for number in 0..50_000 {
        set(&mut engine, &format!("old {number}"));
    }
    ask(&mut engine, &Command::Flush { prefix: None }, View::Pending);
    let new: BTreeSet<String> = (0..50).map(|number| format!("new {number}")).collect();
    for key in &new {
        set(&mut engine, key);
    }
    commit(&mut engine);
    for step in 0..3 {
        let mut pages = 1;
        let keys = walk(&mut engine, "", 10, View::Durable, |_| pages += 1);
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), new);
        assert!(step > 0 || pages > 4, "{pages} pages over 50,000 hidden entries");
        engine.sweep(60_000, &mut |_, _| ());
    }
}

#[test]
fn keys_that_frames_cannot_name_and_removed_keys_do_not_show() {
    let mut engine = engine();
    set(&mut engine, "seen");
    set(&mut engine, "removed");
    let key = Key { space: Space::Python, bytes: b"seen too" };
    ask(&mut engine, &Command::Set { key, value: b"v".into(), options: SetOptions::default() }, View::Pending);
    commit(&mut engine);
    delete(&mut engine, "removed");
    set(&mut engine, "flushed");
    ask(&mut engine, &Command::Flush { prefix: Some(b"flu") }, View::Pending);
    assert_eq!(page(&mut engine, 0, "", 10, View::Pending), (0, vec!["seen".to_owned()]));
    let (_, durable) = page(&mut engine, 0, "", 10, View::Durable);
    assert_eq!(durable.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["seen".into(), "removed".into()]));
}
