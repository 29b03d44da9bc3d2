//! The packed dialect under any input, given without the mark that begins a message.
//!
//! Decoding never panics, and gives the same when it is done again. What it accepts lies within the limits, and comes back equal when it is spelled out anew by the
//! tests' client. What it refuses, as a whole or command by command, it refuses shortly, in a reply that a client can read.
#![no_main]

use kvd::command::{MAX_BODY_FRAMES, MAX_PACKED_COMMANDS};
use kvd::wire::{WireError, packed};
use kvd_fuzz::{LIMITS, assert_same_when_decoded_again, assert_short, assert_within_limits, listed};
use libfuzzer_sys::fuzz_target;
use packed_codec::{Told, message, replies};

#[path = "../../tests/it/packed_codec.rs"]
mod packed_codec;

fuzz_target!(|data: &[u8]| {
    let bytes = [&[packed::MARK], data].concat();
    assert_same_when_decoded_again(&[&bytes]);
    let commands = match packed::decode(&bytes, &LIMITS) {
        Ok(commands) => commands,
        Err(error) => return is_told(error),
    };
    let announced = commands.len();
    assert!(announced <= MAX_PACKED_COMMANDS);
    let mut accepted = Vec::new();
    let mut refused = 0;
    for command in commands {
        match command {
            Ok(command) => accepted.push(command),
            Err(error) => {
                refused += 1;
                is_told(error);
            }
        }
    }
    assert_eq!(accepted.len() + refused, announced);
    assert!(accepted.iter().map(|command| listed(command).len()).sum::<usize>() <= MAX_BODY_FRAMES);
    accepted.iter().for_each(assert_within_limits);
    let spelled = message(&accepted);
    let again: Result<Vec<_>, _> = packed::decode(&spelled, &LIMITS).expect("a list").collect();
    assert_eq!(again, Ok(accepted));
});

/// Asserts that an error is short, and that the reply that tells it is one.
fn is_told(error: WireError) {
    assert_short(&error);
    let expected = Told::Error { code: error.code.name().into(), message: error.message.to_string() };
    let mut reply = Vec::new();
    packed::begin(1, &mut reply);
    packed::encode(&error.reply(), &mut reply);
    assert_eq!(replies(&reply), Some(vec![expected]));
}
