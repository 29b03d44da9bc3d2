//! The bytes on disk are frozen: a segment that was laid out once, by `tests/python/make_golden.py` from `docs/format.md` and not
//! by kvd's own code, reads as it always did, and kvd writes the very same bytes.

use kvd::log::batch::{Batch, Durable, Link};
use kvd::log::recovery::{Verdict, judge_compacted};
use kvd::log::scan::{Fault, scan};
use kvd::log::segment::{Compacted, HeaderState, SEGMENT_HEADER, SegmentHeader, SegmentKind};
use kvd::mutation::{Key, Mutation, Space, Value};

const COMPACTED: &[u8] = include_bytes!("../fixtures/v1/segment-00000000000000000003.log");
const GOLDEN: &[u8] = include_bytes!("../fixtures/v1/segment-00000000000000000001.log");

fn mutations() -> Vec<(u64, Mutation<'static>)> {
    let value = |bytes, flags, deadline| Value { bytes, flags, deadline };
    vec![
        (1, Mutation::Put { key: Key::bytes(b"plain"), value: value(b"value", 0, 0) }),
        (2, Mutation::Put { key: Key::bytes(b"k"), value: value(b"", 0x7fff_ffff, 1_700_000_000_123) }),
        (
            3,
            Mutation::Put { key: Key { space: Space::Python, bytes: b"\x02" }, value: value(&[0xab; 300], 1 << 31, 0) },
        ),
        (4, Mutation::Remove { key: Key::bytes(b"plain") }),
        (5, Mutation::Flush { prefix: Some(b"user:") }),
        (6, Mutation::Flush { prefix: None }),
    ]
}

fn header() -> SegmentHeader {
    SegmentHeader {
        kind: SegmentKind::Journal,
        identity: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        number: 1,
        epoch: 0,
        next_version: 1,
        watermark: 0,
        link: Link { number: 1, chain: 0 },
        created: 1_700_000_000_000,
    }
}

#[test]
fn the_frozen_segment_reads_as_it_was_written() {
    assert_eq!(SegmentHeader::decode(GOLDEN), HeaderState::Valid(header()));
    let mut read = Vec::new();
    let report = scan(&header(), GOLDEN, &mut |batch| {
        read.extend(batch.records().map(|record| format!("{} {:?}", record.version, record.mutation)));
    });
    let expected: Vec<_> = mutations().iter().map(|(version, mutation)| format!("{version} {mutation:?}")).collect();
    assert_eq!(read, expected);
    assert_eq!((report.end as usize, report.batches, report.records), (GOLDEN.len(), 3, 6));
    assert!(report.clean_stop && report.fault.is_none());
    assert_eq!((report.next_version, report.last_now), (7, 1_700_000_000_789));
}

#[test]
fn the_same_mutations_are_written_as_the_same_bytes() {
    let mutations = mutations();
    // The first batch: two groups of one, and one of three that the fourth record is not part of.
    let mut first = Batch::default();
    for (index, (version, mutation)) in mutations.iter().take(4).enumerate() {
        first.push(*version, mutation);
        if index != 1 {
            first.end_group();
        }
    }
    first.stamp(1_700_000_000_456, 5);
    let mut second = Batch::default();
    for (version, mutation) in mutations.iter().skip(4) {
        second.push(*version, mutation);
        second.end_group();
    }
    second.stamp(1_700_000_000_789, 7);
    let mut stop = Batch::clean_stop();
    stop.stamp(1_700_000_000_789, 7);

    let mut bytes = header().encode();
    assert_eq!(bytes.len(), SEGMENT_HEADER);
    let mut link = header().link;
    let durable = [Durable::default(), Durable { batch: 1, version: 4 }, Durable { batch: 2, version: 6 }];
    for (batch, durable) in [&mut first, &mut second, &mut stop].into_iter().zip(durable) {
        let (sealed, next) = batch.seal(header().seed(), bytes.len() as u64, link, durable);
        bytes.extend_from_slice(sealed);
        link = next;
    }
    assert!(bytes == GOLDEN, "the bytes on disk have changed: that is a new format version");
}

/// What the compacted segment holds: a value, and two removals that something older may need.
fn survivors() -> Vec<(u64, Mutation<'static>)> {
    let value = Value { bytes: b"", flags: 0x7fff_ffff, deadline: 1_700_000_000_123 };
    vec![
        (2, Mutation::Put { key: Key::bytes(b"k"), value }),
        (4, Mutation::Remove { key: Key::bytes(b"plain") }),
        (7, Mutation::Flush { prefix: Some(b"user:") }),
    ]
}

fn compacted_header() -> SegmentHeader {
    let kind = SegmentKind::Compacted(Compacted { first: 1, generation: 2, length: COMPACTED.len() as u64 });
    SegmentHeader { kind, number: 3, watermark: 9, ..header() }
}

#[test]
fn the_frozen_compacted_segment_reads_as_it_was_written() {
    assert_eq!(SegmentHeader::decode(COMPACTED), HeaderState::Valid(compacted_header()));
    let mut read = Vec::new();
    let report = scan(&compacted_header(), COMPACTED, &mut |batch| {
        read.extend(batch.records().map(|record| format!("{} {:?}", record.version, record.mutation)));
    });
    let expected: Vec<_> = survivors().iter().map(|(version, mutation)| format!("{version} {mutation:?}")).collect();
    assert_eq!(read, expected);
    assert_eq!((report.end as usize, report.batches, report.fault), (COMPACTED.len(), 1, None));
}

#[test]
fn a_compacted_segment_is_as_long_as_it_says_to_the_byte() {
    let header = compacted_header();
    let SegmentKind::Compacted(compacted) = header.kind else { panic!("a compacted one") };
    let judged =
        |bytes: &[u8], file_len: usize| judge_compacted(&scan(&header, bytes, &mut |_| ()), compacted, file_len as u64);
    let length = COMPACTED.len();
    assert_eq!(judged(COMPACTED, length), Verdict::Clean);
    // What is read leaves the zeros at the end of a file out.
    assert_eq!(judged(COMPACTED, length + 1), Verdict::Damage(Fault::Trailing));
    let too_short = Verdict::Damage(Fault::TooShort { length: length as u64 });
    assert_eq!(judged(&COMPACTED[..SEGMENT_HEADER], length), too_short);
    assert_eq!(judged(&COMPACTED[..SEGMENT_HEADER], SEGMENT_HEADER), too_short);
}

#[test]
fn the_same_survivors_are_written_as_the_same_bytes() {
    let mut batch = Batch::default();
    for (version, mutation) in &survivors() {
        batch.push(*version, mutation);
        batch.end_group();
    }
    batch.stamp(1_700_000_000_789, 8);
    let header = compacted_header();
    let mut bytes = header.encode();
    let durable = Durable { batch: 0, version: 9 };
    let (sealed, _) = batch.seal(header.seed(), bytes.len() as u64, header.first_batch(), durable);
    bytes.extend_from_slice(sealed);
    assert!(bytes == COMPACTED, "the bytes on disk have changed: that is a new format version");
}
