//! Which segments to compact next.
//!
//! Pure: the accounts in, a choice out. Does not know files, rates or threads.
//!
//! A segment is judged by benefit over cost, as in the log-structured file system (Rosenblum and Ousterhout, "The Design
//! and Implementation of a Log-Structured File System", ACM TOCS 1992, section 3.6): what compacting it gives back, the
//! share 1 - u of it that is garbage, times how long that will last, which its age foretells, over the cost of reading
//! all of it and writing the share u that is kept.
//!
//! Only neighbours are compacted together, so that the segments go on parting the versions among themselves (see
//! [`super::Ledger`]).

use super::ledger::Usage;
use std::ops::Range;

/// Bytes of garbage below which a segment is never worth it.
const LEAST_GARBAGE: u64 = 512;
/// Segments that are compacted together, at most. Each is an open file until the end, and the descriptors kept back for the
/// log where connections use up all others are few.
const MOST_VICTIMS: usize = 8;

/// How much garbage makes a compaction worth while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appetite {
    /// Only segments that count for nothing any more.
    Free,
    /// Segments of which a quarter or more is garbage.
    Quarter,
    /// Any segment with garbage to speak of.
    Any,
}

impl Appetite {
    /// Bytes of garbage that a segment of this size must have.
    fn least(self, bytes: u64) -> u64 {
        match self {
            Appetite::Free | Appetite::Quarter => bytes / 4,
            Appetite::Any => bytes / 32,
        }
        .max(LEAST_GARBAGE)
    }
}

/// Segments to be compacted into one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of the first one.
    pub first: u64,
    /// Number of the last one, which the new segment takes over.
    pub last: u64,
    /// Whether removals must be kept, since an older segment may hold what they hide.
    pub keep_removals: bool,
    /// Whether nothing in them has to be kept, so that they need not even be read.
    pub is_empty: bool,
}

/// Chooses among sealed segments, oldest first. `None` if nothing is worth it.
pub fn choose(sealed: &[Usage], segment_size: u64, appetite: Appetite) -> Option<Run> {
    let clean_up_to = sealed.iter().position(|usage| !usage.is_clean()).unwrap_or(sealed.len());
    let newest = sealed.last()?.number;
    // Removals that can't go before the oldest unclean segment is compacted are garbage in waiting, and are its benefit.
    let blocked: u64 = sealed.iter().skip(clean_up_to + 1).map(|usage| usage.tally.removal_bytes).sum();
    let held_up = blocked > sealed.iter().map(|usage| usage.bytes).sum::<u64>() / 4;
    let worth = |index: usize, usage: &Usage| {
        let keep_removals = index > clean_up_to;
        let garbage = usage.garbage(keep_removals);
        let is_unblocking = held_up && index == clean_up_to && appetite != Appetite::Free;
        let is_free = usage.live == 0 && !keep_removals;
        let wanted = match appetite {
            Appetite::Free => is_free,
            Appetite::Quarter | Appetite::Any => garbage >= appetite.least(usage.bytes),
        };
        if usage.spoiled || usage.bytes == 0 || !(wanted && garbage > 0 || is_unblocking) {
            return None;
        }
        let kept = 1.0 - garbage as f64 / usage.bytes as f64;
        let age = (newest - usage.number + 1) as f64;
        let blocked = if is_unblocking { blocked as f64 / usage.bytes as f64 } else { 0.0 };
        Some((1.0 - kept + blocked) * age / (1.0 + kept))
    };
    let best = sealed
        .iter()
        .enumerate()
        .filter_map(|(index, usage)| Some((index, worth(index, usage)?)))
        .max_by(|(_, one), (_, other)| one.total_cmp(other))?
        .0;
    run_of(sealed, widen(sealed, best, segment_size, clean_up_to), clean_up_to)
}

/// The next run of a pass over all segments, oldest first, from number `from` up to number `up_to`: whatever has garbage to
/// speak of. Oldest first makes segment after segment clean, so that in the end every removal that hides nothing has gone.
pub fn next(sealed: &[Usage], segment_size: u64, from: u64, up_to: u64) -> Option<Run> {
    let clean_up_to = sealed.iter().position(|usage| !usage.is_clean()).unwrap_or(sealed.len());
    let worth = |(index, usage): (usize, &Usage)| {
        let within = (from..=up_to).contains(&usage.number) && !usage.spoiled;
        within && usage.garbage(index > clean_up_to) >= Appetite::Any.least(usage.bytes)
    };
    let first = sealed.iter().enumerate().position(worth)?;
    run_of(sealed, widen(sealed, first, segment_size, clean_up_to), clean_up_to)
}

fn run_of(sealed: &[Usage], range: Range<usize>, clean_up_to: usize) -> Option<Run> {
    let keep_removals = range.start > clean_up_to;
    let victims = sealed.get(range)?;
    Some(Run {
        first: victims.first()?.number,
        last: victims.last()?.number,
        keep_removals,
        is_empty: !keep_removals && victims.iter().all(|usage| usage.live == 0),
    })
}

/// Takes in the neighbours of which little would be left, so that what remains of segments does not become a crowd of
/// small files.
fn widen(sealed: &[Usage], best: usize, segment_size: u64, clean_up_to: usize) -> Range<usize> {
    let small = segment_size / 8;
    let kept = |index: usize| {
        let usage = sealed.get(index).filter(|usage| !usage.spoiled && usage.bytes <= small)?;
        Some(usage.bytes - usage.garbage(index > clean_up_to))
    };
    let mut total = sealed.get(best).map_or(0, |usage| usage.bytes - usage.garbage(best > clean_up_to));
    let (mut start, mut end) = (best, best + 1);
    while end - start < MOST_VICTIMS
        && let Some(more) = start.checked_sub(1).and_then(kept).filter(|more| total + more <= segment_size)
    {
        total += more;
        start -= 1;
    }
    while end - start < MOST_VICTIMS
        && let Some(more) = kept(end).filter(|more| total + more <= segment_size)
    {
        total += more;
        end += 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::Tally;

    const SIZE: u64 = 1 << 20;

    /// A full segment of this number, of whose 100 values so many count.
    fn usage(number: u64, live: u64) -> Usage {
        let tally = Tally { puts: 100, put_bytes: SIZE - 4096, ..Tally::default() };
        let live_bytes = live * (SIZE - 4096) / 100;
        Usage {
            first: number,
            number,
            generation: 0,
            versions_from: number * 1000,
            bytes: SIZE,
            tally,
            live,
            live_bytes,
            spoiled: false,
        }
    }

    fn chosen(sealed: &[Usage], appetite: Appetite) -> Option<(u64, u64)> {
        choose(sealed, SIZE, appetite).map(|run| (run.first, run.last))
    }

    #[test]
    fn nothing_where_there_is_no_garbage() {
        assert_eq!(chosen(&[], Appetite::Any), None);
        assert_eq!(chosen(&[usage(1, 100), usage(2, 100)], Appetite::Any), None);
        assert_eq!(chosen(&[usage(1, 90), usage(2, 80)], Appetite::Quarter), None);
        assert_eq!(chosen(&[usage(1, 90), usage(2, 80)], Appetite::Free), None);
    }

    #[test]
    fn the_emptiest_of_one_age() {
        assert_eq!(chosen(&[usage(1, 60), usage(2, 10), usage(3, 50)], Appetite::Quarter), Some((2, 2)));
    }

    #[test]
    fn the_older_of_two_that_are_alike() {
        assert_eq!(chosen(&[usage(1, 50), usage(2, 50), usage(3, 50)], Appetite::Quarter), Some((1, 1)));
        // What is left of an old segment will stay; in a young one waiting gives more.
        assert_eq!(chosen(&[usage(1, 60), usage(2, 100), usage(3, 55)], Appetite::Quarter), Some((1, 1)));
    }

    #[test]
    fn what_counts_for_nothing_is_not_even_read() {
        let sealed = [usage(1, 100), usage(2, 0), usage(3, 70)];
        let run = choose(&sealed, SIZE, Appetite::Free).expect("one that is free");
        assert_eq!((run.first, run.last, run.is_empty, run.keep_removals), (2, 2, true, false));
    }

    #[test]
    fn removals_are_kept_behind_a_segment_that_may_hold_what_they_hide() {
        let mut removals = usage(3, 0);
        removals.tally = Tally { puts: 50, put_bytes: SIZE / 4, removals: 1000, removal_bytes: SIZE / 2 };
        let run = choose(&[usage(1, 100), usage(2, 99), removals], SIZE, Appetite::Quarter).expect("one worth it");
        assert_eq!((run.first, run.keep_removals, run.is_empty), (3, true, false));
        assert_eq!(chosen(&[usage(1, 100), usage(2, 99), removals], Appetite::Free), None);
        let run = choose(&[usage(1, 100), usage(2, 100), removals], SIZE, Appetite::Free).expect("now it is free");
        assert_eq!((run.first, run.keep_removals, run.is_empty), (3, false, true));
    }

    #[test]
    fn many_removals_make_the_segment_that_blocks_them_worth_it() {
        let removals = |number| Usage {
            tally: Tally { removals: 10_000, removal_bytes: SIZE - 8192, ..Tally::default() },
            live_bytes: 0,
            live: 0,
            ..usage(number, 0)
        };
        let sealed = [usage(1, 100), usage(2, 99), removals(3), removals(4)];
        assert_eq!(chosen(&sealed, Appetite::Quarter), Some((2, 2)));
        let sealed = [usage(1, 100), usage(2, 100), removals(3), removals(4)];
        assert!(choose(&sealed, SIZE, Appetite::Free).is_some_and(|run| run.is_empty));
    }

    #[test]
    fn small_neighbours_come_along() {
        let small = |number| {
            let tally = Tally { puts: 10, put_bytes: 60_000, ..Tally::default() };
            Usage { bytes: 64_096, live: 10, live_bytes: 60_000, tally, ..usage(number, 0) }
        };
        assert_eq!(
            chosen(&[small(1), small(2), usage(3, 20), small(4), usage(5, 100)], Appetite::Quarter),
            Some((1, 4))
        );
        assert_eq!(chosen(&[small(1), usage(2, 70), usage(3, 100)], Appetite::Quarter), Some((1, 2)));
        // Not beyond what one segment can hold.
        let full = Usage { live_bytes: SIZE - 5000 - SIZE / 4, ..usage(2, 70) };
        let run = choose(&[small(1), small(2), small(3), small(4), small(5), full], SIZE, Appetite::Quarter);
        assert!(run.is_some_and(|run| run.first > 1 && run.last == 2), "{run:?}");
    }

    #[test]
    fn a_full_pass_goes_from_the_oldest_to_the_newest() {
        let sealed = [usage(1, 100), usage(2, 90), usage(3, 0), usage(4, 50)];
        let next = |from, up_to| next(&sealed, SIZE, from, up_to).map(|run| (run.first, run.last));
        assert_eq!(next(1, 4), Some((2, 2)));
        assert_eq!(next(3, 4), Some((3, 3)));
        assert_eq!(next(4, 4), Some((4, 4)));
        assert_eq!((next(5, 9), next(1, 1)), (None, None));
    }

    /// A segment of which so many bytes are removals, and so many more are values that count.
    fn of(number: u64, bytes: u64, removal_bytes: u64, live_bytes: u64) -> Usage {
        let put_bytes = bytes - 4096 - removal_bytes;
        let tally = Tally { puts: 100, put_bytes, removals: removal_bytes / 64, removal_bytes };
        let live = if live_bytes == put_bytes { 100 } else { 100 * live_bytes / put_bytes.max(1) };
        Usage { bytes, tally, live, live_bytes, ..usage(number, 0) }
    }

    /// Benefit over cost as the paper has it, for what is kept of each byte and an age.
    fn score(kept: f64, age: f64) -> f64 {
        (1.0 - kept) * age / (1.0 + kept)
    }

    #[test]
    fn the_choice_is_by_benefit_over_cost() {
        // In the middle of the list, so that ages are more than one; the first one is unclean: removals count as kept.
        let mut chosen_ones = [0; 4];
        for step in 0..100 * 100 {
            let (one, other) = (step % 100, step / 100);
            let sealed = [usage(7, 99), usage(8, one), usage(9, other), usage(11, 100)];
            let worth = |number: u64, live: u64| {
                let kept = (4096 + live * (SIZE - 4096) / 100) as f64 / SIZE as f64;
                (kept <= 0.75).then(|| score(kept, (11 - number + 1) as f64))
            };
            let best =
                [(8, worth(8, one)), (9, worth(9, other))].into_iter().filter_map(|(n, score)| Some((n, score?)));
            let best = best.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(number, _)| (number, number));
            assert_eq!(chosen(&sealed, Appetite::Quarter), best, "{one}% and {other}% live");
            chosen_ones[best.map_or(0, |(number, _)| number as usize - 7)] += 1;
        }
        assert!(chosen_ones.iter().filter(|count| **count > 1000).count() == 2, "{chosen_ones:?}");
    }

    #[test]
    fn an_appetite_has_its_border() {
        let full = |garbage| [of(1, SIZE, 0, SIZE - 4096 - garbage)];
        for (appetite, least) in [(Appetite::Quarter, SIZE / 4), (Appetite::Any, SIZE / 32)] {
            assert_eq!(chosen(&full(least - 1), appetite), None);
            assert_eq!(chosen(&full(least), appetite), Some((1, 1)));
        }
        let tiny = |garbage| [of(1, 8192, 0, 4096 - garbage)];
        assert_eq!(chosen(&tiny(LEAST_GARBAGE - 1), Appetite::Any), None);
        assert_eq!(chosen(&tiny(LEAST_GARBAGE), Appetite::Any), Some((1, 1)));
        // All of what it holds counts for nothing, and it holds nothing.
        assert_eq!(chosen(&[of(1, 4096, 0, 0)], Appetite::Free), None);
    }

    #[test]
    fn removals_hold_up_from_a_quarter_of_the_log_on() {
        // The second one is unclean by a single value, and blocks what the third one removes.
        let sealed =
            |removal_bytes| [usage(1, 100), usage(2, 99), of(3, SIZE, removal_bytes, SIZE - 4096 - removal_bytes)];
        assert_eq!(chosen(&sealed(3 * SIZE / 4), Appetite::Quarter), None);
        assert_eq!(chosen(&sealed(3 * SIZE / 4 + 1), Appetite::Quarter), Some((2, 2)));
        assert_eq!(chosen(&sealed(3 * SIZE / 4 + 1), Appetite::Free), None);
        // What the blocking one removes itself does not count: it goes with it, or hides something older.
        let own = [of(1, SIZE, 7 * SIZE / 8, 0), of(2, SIZE, SIZE / 8, SIZE - 4096 - SIZE / 8)];
        assert_eq!(chosen(&[Usage { spoiled: true, ..own[0] }, own[1]], Appetite::Quarter), None);
    }

    #[test]
    fn what_it_blocks_is_a_benefit_of_the_blocking_one() {
        // The first one holds nothing but removals that can go, more and more of them; the second has a tenth of garbage,
        // too little to be wanted, but blocks the removals of two others.
        let blocking = usage(10, 90);
        let mut changes = 0;
        for percent in 25..100 {
            let removal_bytes = percent * SIZE / 100;
            let old = of(1, SIZE, removal_bytes, SIZE - 4096 - removal_bytes);
            let sealed = [old, blocking, of(11, SIZE, SIZE - 4096, 0), of(12, SIZE, SIZE - 4096, 0)];
            let garbage = |usage: &Usage| usage.garbage(false) as f64 / SIZE as f64;
            let blocked = 2.0 * (SIZE - 4096) as f64 / SIZE as f64;
            let of_blocking = (garbage(&blocking) + blocked) * 3.0 / (2.0 - garbage(&blocking));
            let best = if score(1.0 - garbage(&old), 12.0) > of_blocking { 1 } else { 10 };
            assert_eq!(chosen(&sealed, Appetite::Quarter), Some((best, best)), "{percent}%");
            changes += usize::from(best == 1);
        }
        assert!((20..60).contains(&changes), "{changes} of 75");
    }

    #[test]
    fn neighbours_come_along_up_to_a_whole_segment_and_not_beyond() {
        let small = |number, live_bytes| of(number, SIZE / 8, 0, live_bytes);
        let victim = |number, kept| of(number, SIZE, 0, kept - 4096);
        for (more, taken) in [(0, true), (1, false)] {
            // Of the victim and a neighbour, headers included, what is kept is a segment, or one byte more.
            let half = SIZE - SIZE / 8 + more;
            let older = [small(1, SIZE / 8 - 4096), Usage { number: 2, ..victim(2, half) }];
            let younger = [victim(1, half), small(2, SIZE / 8 - 4096)];
            // More of it is kept than is usual, so that it is chosen at all costs.
            let run = |sealed: &[Usage], best| widen(sealed, best, SIZE, sealed.len());
            assert_eq!(run(&older, 1), if taken { 0..2 } else { 1..2 });
            assert_eq!(run(&younger, 0), if taken { 0..2 } else { 0..1 });
        }
        // One byte too large to be small.
        let large = of(1, SIZE / 8 + 1, 0, 1000);
        assert_eq!(widen(&[large, victim(2, SIZE / 8)], 1, SIZE, 2), 1..2);
        // Each that comes along counts from then on.
        let nine: Vec<_> = (1..=9).map(|number| small(number, SIZE / 8 - 4096)).collect();
        assert_eq!(widen(&nine, 2, SIZE, 9), 0..8);
        assert_eq!(widen(&nine, 8, SIZE, 9), 1..9);
        // Removals are kept behind an unclean one, those of a neighbour and the victim's own.
        let removals = |number| of(number, SIZE / 8, SIZE / 8 - 4096, 0);
        let three = [removals(1), victim(2, SIZE - 3 * 4096), removals(3)];
        assert_eq!(widen(&three, 1, SIZE, 3), 0..3, "they go");
        assert_eq!(widen(&three, 1, SIZE, 2), 0..3, "those of the unclean one itself go");
        assert_eq!(widen(&three, 1, SIZE, 1), 0..2);
        let two = [small(1, SIZE / 8 - 4096), of(2, SIZE, SIZE - 3 * 4096, 4096)];
        assert_eq!(widen(&two, 1, SIZE, 1), 0..2);
        assert_eq!(widen(&two, 1, SIZE, 0), 1..2);
    }

    #[test]
    fn no_more_come_along_than_there_are_descriptors_for() {
        let empty: Vec<Usage> = (1..=30).map(|number| of(number, 4096, 0, 0)).collect();
        for best in [0, 15, 29] {
            let taken = widen(&empty, best, SIZE, empty.len());
            assert!(taken.contains(&best) && taken.len() == MOST_VICTIMS, "{taken:?}");
        }
    }

    #[test]
    fn a_full_pass_leaves_alone_what_is_spoiled_or_must_stay() {
        let removals = |number| of(number, SIZE, SIZE / 2, SIZE - 4096 - SIZE / 2);
        let run = |sealed: &[Usage]| next(sealed, SIZE, 1, 9).map(|run| (run.first, run.keep_removals));
        assert_eq!(run(&[Usage { spoiled: true, ..usage(1, 0) }, usage(2, 50)]), Some((2, true)));
        assert_eq!(run(&[removals(1), usage(2, 100)]), Some((1, false)));
        assert_eq!(run(&[usage(1, 99), removals(2)]), None, "they may hide what is in the first one");
        let first = Usage { live: 99, ..removals(1) };
        assert_eq!(run(&[first, removals(2)]), Some((1, false)), "the unclean one hides nothing that is older");
    }

    #[test]
    fn a_spoiled_segment_is_left_alone() {
        let spoiled = Usage { spoiled: true, ..usage(1, 0) };
        assert_eq!(chosen(&[spoiled, usage(2, 40)], Appetite::Any), Some((2, 2)));
        assert!(choose(&[spoiled, usage(2, 40)], SIZE, Appetite::Any).is_some_and(|run| run.keep_removals));
    }
}
