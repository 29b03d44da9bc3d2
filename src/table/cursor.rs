//! SCAN cursors: positions in the order of hashes, turned into numbers that tell nothing of them.
//!
//! Knows positions as numbers of 53 bits; knows no keys. A cursor is below 2^53, so that a client whose numbers are doubles
//! loses nothing, and is the position under a permutation that the store's secret chooses. So there is no state to keep for
//! it, it stays good across a restart, and every number is the cursor of some position.
//!
//! The permutation is a Feistel network (Luby, Rackoff, "How to construct pseudorandom permutations from pseudorandom
//! functions", SIAM J. Comput. 1988) over halves of 26 and 27 bits, each of which is changed by the other in turn, with
//! SipHash-2-4 as its function. Four rounds are what the proof asks for; halves as short as these are given ten, as in NIST SP
//! 800-38G (FF1).

use super::hash::{Purpose, derive, halves};
use siphasher::sip::SipHasher24;

/// Bits of a position, and of a cursor.
pub const POSITION_BITS: u32 = 53;

const LOW_BITS: u32 = 26;
const LOW: u64 = (1 << LOW_BITS) - 1;
const HIGH: u64 = (1 << (POSITION_BITS - LOW_BITS)) - 1;
const ROUNDS: u8 = 10;

/// The permutation.
pub struct Cursors {
    function: SipHasher24,
}

impl Cursors {
    /// Those of the store that has this secret.
    pub fn new(secret: u128) -> Cursors {
        let (first, second) = halves(derive(secret, Purpose::Cursors));
        Cursors { function: SipHasher24::new_with_keys(first, second) }
    }

    /// The cursor of a position. Position 0, where a SCAN begins, is cursor 0, and no other is.
    pub fn hide(&self, position: u64) -> u64 {
        if position == 0 {
            return 0;
        }
        // What would be 0 takes the place that 0 left.
        match self.permute(position) {
            0 => self.permute(0),
            cursor => cursor,
        }
    }

    /// The position of a cursor. Of a number that is none the low bits count.
    pub fn reveal(&self, cursor: u64) -> u64 {
        let cursor = cursor & ((1 << POSITION_BITS) - 1);
        if cursor == 0 {
            return 0;
        }
        match self.permute_back(cursor) {
            0 => self.permute_back(0),
            position => position,
        }
    }

    fn permute(&self, number: u64) -> u64 {
        (0..ROUNDS).fold(number, |number, round| self.round(round, number))
    }

    fn permute_back(&self, number: u64) -> u64 {
        (0..ROUNDS).rev().fold(number, |number, round| self.round(round, number))
    }

    /// Changes one half by the other, and is its own inverse.
    fn round(&self, round: u8, number: u64) -> u64 {
        let (high, low) = (number >> LOW_BITS, number & LOW);
        let of = |half: u64| {
            let [a, b, c, d, ..] = half.to_le_bytes();
            self.function.hash(&[round, a, b, c, d])
        };
        if round.is_multiple_of(2) {
            high << LOW_BITS | (low ^ (of(high) & LOW))
        } else {
            (high ^ (of(low) & HIGH)) << LOW_BITS | low
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const END: u64 = 1 << POSITION_BITS;

    #[test]
    fn every_cursor_is_of_one_position_and_below_two_to_the_53() {
        for secret in [0, 1, 1 << 127] {
            let cursors = Cursors::new(secret);
            let ends = (0..1_000).chain(END - 1_000..END).chain((0..POSITION_BITS).map(|bit| 1 << bit));
            for number in ends.chain((0..END).step_by((END / 1_000) as usize)) {
                let cursor = cursors.hide(number);
                assert!(cursor < END && (cursor == 0) == (number == 0), "{number} {cursor}");
                assert_eq!(cursors.reveal(cursor), number);
                assert_eq!(cursors.hide(cursors.reveal(number)), number);
            }
        }
    }

    #[test]
    fn the_position_that_would_be_cursor_0_takes_the_one_of_position_0() {
        let cursors = Cursors::new(3);
        let (unlucky, free) = (cursors.permute_back(0), cursors.permute(0));
        assert!(unlucky != 0 && free != 0);
        assert_eq!((cursors.hide(unlucky), cursors.reveal(free)), (free, unlucky));
    }

    #[test]
    fn a_number_that_is_no_cursor_is_harmless() {
        let cursors = Cursors::new(3);
        for number in [END, END + 5, u64::MAX / 2, u64::MAX] {
            assert_eq!(cursors.reveal(number), cursors.reveal(number % END));
        }
    }

    /// Of positions that differ in one bit, about half of the bits of their cursors differ.
    #[test]
    fn cursors_tell_nothing_of_positions() {
        let cursors = Cursors::new(5);
        for bit in 0..POSITION_BITS {
            let differ = |at: u64| (cursors.hide(at) ^ cursors.hide(at ^ 1 << bit)).count_ones();
            let sum: u32 = (1..=400).map(|n| differ(n << 40 | n)).sum();
            assert!((400 * 25..400 * 28).contains(&sum), "bit {bit}: {sum}");
        }
        let in_order = (1..1_000_u64).filter(|n| cursors.hide(n << 20) < cursors.hide((n + 1) << 20)).count();
        assert!((400..600).contains(&in_order), "{in_order}");
    }

    #[test]
    fn the_secret_decides() {
        let cursors: BTreeSet<u64> =
            (0..128).map(|bit| Cursors::new(1 << bit).hide(1)).chain([Cursors::new(0).hide(1)]).collect();
        assert_eq!(cursors.len(), 129);
    }

    /// Pinned: cursors that clients hold must stay good when kvd is upgraded.
    #[test]
    fn the_cursors_of_a_store_stay_the_same() {
        assert_eq!(Cursors::new(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100).hide(1), 3_169_056_610_910_433);
    }
}
