//! The frames dialect under any input: a line is a frame.
//!
//! Decoding never panics, and gives the same when it is done again. What it accepts lies within the limits, means the same with its verb in another case, and
//! comes back equal when it is spelled out anew. What it refuses it refuses shortly.
#![no_main]

use kvd::command::{Absent, Command, Condition, DEFAULT_SCAN_COUNT, End, Expiry, NewCounter, SetOptions};
use kvd::mutation::PICKLED;
use kvd::wire::{ReplyFrames, frames};
use kvd_fuzz::{LIMITS, assert_same_when_decoded_again, assert_short, assert_within_limits, keys};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let body: Vec<&[u8]> = data.split(|&byte| byte == b'\n').collect();
    // In whichever dialect this is.
    assert_same_when_decoded_again(&body);
    match frames::decode(&body, &LIMITS) {
        Ok(command) => {
            assert_within_limits(&command);
            let mut other_case = body.clone();
            let verb: Vec<u8> = body[0].iter().map(|byte| byte ^ 0x20).collect();
            other_case[0] = &verb;
            assert_eq!(frames::decode(&other_case, &LIMITS).as_ref(), Ok(&command));
            let spelled = spell(&command);
            let spelled: Vec<&[u8]> = spelled.iter().map(Vec::as_slice).collect();
            assert_eq!(frames::decode(&spelled, &LIMITS).as_ref(), Ok(&command));
        }
        Err(error) => {
            assert_short(&error);
            let mut reply = ReplyFrames::default();
            frames::encode(&error.reply(), &mut reply);
            assert_eq!(reply.len(), 3);
        }
    }
});

/// The frames of a command, as a client would write them.
fn spell(command: &Command<'_>) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = Vec::new();
    let mut add = |frame: &[u8]| frames.push(frame.to_vec());
    let verb: &[u8] = match command {
        Command::Ping => b"PING",
        Command::Set { .. } => b"SET",
        Command::Get { .. } => b"GET",
        Command::Delete { .. } => b"DEL",
        Command::Exists { .. } => b"EXISTS",
        Command::GetMany { .. } => b"MGET",
        Command::SetMany { .. } => b"MSET",
        Command::GetEntries { .. } => b"MGETS",
        Command::SetEntries { .. } => b"MSETS",
        Command::Increment { .. } => b"INCR",
        Command::Extend { end: End::Back, .. } => b"APPEND",
        Command::Extend { end: End::Front, .. } => b"PREPEND",
        Command::Touch { .. } => b"TOUCH",
        Command::TimeToLive { .. } => b"TTL",
        Command::GetDelete { .. } => b"GETDEL",
        Command::GetTouch { .. } => b"GETEX",
        Command::DeleteIf { .. } => b"DELIF",
        Command::Scan { .. } => b"SCAN",
        Command::Count => b"COUNT",
        Command::Flush { .. } => b"FLUSH",
        Command::Sync => b"SYNC",
        Command::Compact => b"COMPACT",
        Command::Stats => b"STATS",
        Command::Version => b"VERSION",
    };
    add(verb);
    match command {
        Command::SetMany { pairs } => {
            for (key, value) in pairs {
                add(key.bytes);
                add(value);
            }
        }
        Command::SetEntries { entries, expiry } => {
            spell_expiry(*expiry, &mut add);
            add(b"KEYS");
            for entry in entries {
                add(entry.key.bytes);
                add(entry.value);
                add(entry.flags.to_string().as_bytes());
            }
        }
        Command::Scan { cursor, prefix, count } => {
            add(cursor.to_string().as_bytes());
            if !prefix.is_empty() {
                add(b"PREFIX");
                add(prefix);
            }
            if *count != DEFAULT_SCAN_COUNT {
                add(b"COUNT");
                add(count.to_string().as_bytes());
            }
        }
        Command::Flush { prefix: Some(prefix) } => {
            add(b"PREFIX");
            add(prefix);
        }
        _ => {
            for key in keys(command) {
                add(key.bytes);
            }
        }
    }
    match command {
        Command::Set { value, options, .. } => {
            add(&value.to_vec());
            spell_options(*options, &mut add);
        }
        Command::Increment { delta, absent, .. } => {
            add(delta.to_string().as_bytes());
            match absent {
                Absent::Miss => add(b"XX"),
                Absent::Make(NewCounter { initial, expiry, flags }) => {
                    add(b"INIT");
                    add(initial.to_string().as_bytes());
                    spell_expiry(*expiry, &mut add);
                    add(b"FLAGS");
                    add(flags.to_string().as_bytes());
                }
            }
        }
        Command::DeleteIf { version, .. } => add(version.to_string().as_bytes()),
        Command::GetTouch { expiry: Expiry::Never, .. } => add(b"PERSIST"),
        Command::GetTouch { expiry, .. } => spell_expiry(*expiry, &mut add),
        Command::Extend { bytes, .. } => add(bytes),
        Command::Touch { expiry: Expiry::In(milliseconds), .. } => add(milliseconds.to_string().as_bytes()),
        Command::Touch { .. } => add(b"0"),
        _ => {}
    }
    frames
}

fn spell_expiry(expiry: Expiry, add: &mut impl FnMut(&[u8])) {
    let mut number = |name: &[u8], number: u64| {
        add(name);
        add(number.to_string().as_bytes());
    };
    match expiry {
        Expiry::Never => {}
        Expiry::In(milliseconds) => number(b"TTL", milliseconds),
        Expiry::At(at) => number(b"AT", at),
    }
}

fn spell_options(options: SetOptions, add: &mut impl FnMut(&[u8])) {
    spell_expiry(options.expiry, add);
    let mut number = |name: &[u8], number: u64| {
        add(name);
        add(number.to_string().as_bytes());
    };
    if options.flags & !PICKLED != 0 {
        number(b"FLAGS", u64::from(options.flags & !PICKLED));
    }
    match options.condition {
        Condition::Always => {}
        Condition::Absent => add(b"NX"),
        Condition::Present => add(b"XX"),
        Condition::Version(version) => number(b"IF", version),
    }
    if options.flags & PICKLED != 0 {
        add(b"PICKLED");
    }
}
