//! The bytes on disk are frozen: segments that were laid out once, by `tests/python/make_golden.py` from `docs/format.md` and
//! not by kvd's own code, read as they always did, and kvd writes the very same bytes of the version that it writes.

use kvd::log::Secret;
use kvd::log::batch::{Batch, Dependency, Durable, Link};
use kvd::log::compaction::CompactedWriter;
use kvd::log::fs::FakeDisk;
use kvd::log::recovery::{Verdict, judge_compacted};
use kvd::log::scan::{Fault, SegmentReport, scan};
use kvd::log::segment::{Compacted, HeaderState, SEGMENT_HEADER, SegmentHeader, SegmentKind};
use kvd::mutation::{Key, Mutation, Space, Value};
use kvd::timeline::Time;

const JOURNAL_1: &[u8] = include_bytes!("../fixtures/v1/segment-00000000000000000001.log");
const COMPACTED_1: &[u8] = include_bytes!("../fixtures/v1/segment-00000000000000000003.log");
const JOURNAL: &[u8] = include_bytes!("../fixtures/v2/segment-00000000000000000004.log");
const COMPACTED: &[u8] = include_bytes!("../fixtures/v2/segment-00000000000000000003.log");

type Records = Vec<(u64, Mutation<'static>)>;

fn value(bytes: &'static [u8], flags: u32, deadline: u64) -> Value<'static> {
    Value { bytes, flags, deadline }
}

/// Two groups of one and one of two, from this version on.
fn puts_and_a_removal(from: u64) -> Records {
    let python = Key { space: Space::Python, bytes: b"\x02" };
    vec![
        (from, Mutation::Put { key: Key::bytes(b"plain"), value: value(b"value", 0, 0) }),
        (from + 1, Mutation::Put { key: Key::bytes(b"k"), value: value(b"", 0x7fff_ffff, 1_700_000_000_123) }),
        (from + 2, Mutation::Put { key: python, value: value(&[0xab; 300], 1 << 31, 0) }),
        (from + 3, Mutation::Remove { key: Key::bytes(b"plain") }),
    ]
}

fn flushes(from: u64) -> Records {
    vec![(from, Mutation::Flush { prefix: Some(b"user:") }), (from + 1, Mutation::Flush { prefix: None })]
}

fn journal_1() -> SegmentHeader {
    SegmentHeader {
        kind: SegmentKind::Journal,
        identity: 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100,
        secret: None,
        number: 1,
        epoch: 0,
        next_version: 1,
        durable_version: 0,
        link: Link { number: 1, chain: 0 },
        time: 1_700_000_000_000.into(),
    }
}

fn compacted_1() -> SegmentHeader {
    let kind = SegmentKind::Compacted(Compacted { first: 1, generation: 2, length: COMPACTED_1.len() as u64 });
    SegmentHeader { kind, number: 3, durable_version: 9, ..journal_1() }
}

fn secret() -> Secret {
    Secret::new(0xfffe_fdfc_fbfa_f9f8_f7f6_f5f4_f3f2_f1f0)
}

fn journal() -> SegmentHeader {
    SegmentHeader {
        secret: Some(secret()),
        number: 4,
        next_version: 20,
        durable_version: 19,
        link: Link { number: 9, chain: 0x00c0_ffee },
        time: Time { now: 1_700_000_000_800, offset: -250 },
        ..journal_1()
    }
}

fn compacted() -> SegmentHeader {
    let kind = SegmentKind::Compacted(Compacted { first: 2, generation: 2, length: COMPACTED.len() as u64 });
    SegmentHeader {
        kind,
        number: 3,
        next_version: 10,
        durable_version: 40,
        link: Link { number: 5, chain: 77 },
        time: Time { now: 1_700_000_000_700, offset: -250 },
        ..journal()
    }
}

/// What a segment holds: its records, what it relies on, and the report.
fn read(header: &SegmentHeader, bytes: &'static [u8]) -> (Records, Vec<Dependency>, SegmentReport) {
    assert_eq!(SegmentHeader::decode(bytes), HeaderState::Valid(*header));
    let (mut records, mut dependencies) = (Vec::new(), Vec::new());
    let report = scan(header, bytes, &mut |batch| {
        records.extend(batch.records().map(|record| (record.version, record.mutation)));
        dependencies.extend(batch.dependencies());
    });
    assert_eq!((report.end as usize, report.fault), (bytes.len(), None));
    (records, dependencies, report)
}

#[test]
fn the_frozen_segments_of_the_first_version_read_as_they_were_written() {
    let (records, _, report) = read(&journal_1(), JOURNAL_1);
    assert_eq!(records, [puts_and_a_removal(1), flushes(5)].concat());
    assert_eq!((report.batches, report.records, report.clean_stop), (3, 6, true));
    assert_eq!((report.next_version, report.time), (7, 1_700_000_000_789.into()));

    let (records, dependencies, report) = read(&compacted_1(), COMPACTED_1);
    let kept = Mutation::Put { key: Key::bytes(b"k"), value: value(b"", 0x7fff_ffff, 1_700_000_000_123) };
    let removed = Mutation::Remove { key: Key::bytes(b"plain") };
    assert_eq!(records, [(2, kept), (4, removed), (7, Mutation::Flush { prefix: Some(b"user:") })]);
    assert_eq!((report.batches, dependencies), (1, vec![]));
}

fn second_batch() -> Records {
    let evicted = (24, Mutation::Evict { key: Key::bytes(b"k") });
    [vec![evicted], flushes(25)].concat()
}

fn survivors() -> Records {
    vec![
        (12, Mutation::Put { key: Key::bytes(b"k"), value: value(b"", 0x7fff_ffff, 1_700_000_000_123) }),
        (14, Mutation::Put { key: Key::bytes(b"last"), value: value(b"v", 0, 0) }),
    ]
}

#[test]
fn the_frozen_segments_read_as_they_were_written() {
    let (records, _, report) = read(&journal(), JOURNAL);
    assert_eq!(records, [puts_and_a_removal(20), second_batch()].concat());
    assert_eq!((report.batches, report.records, report.clean_stop), (4, 7, true));
    assert_eq!((report.next_version, report.time), (27, Time { now: 1_700_000_001_000, offset: 90_000 }));
    assert_eq!((report.last_batch, report.proven), (12, 11));

    let (records, dependencies, report) = read(&compacted(), COMPACTED);
    assert_eq!(records, survivors());
    assert_eq!(dependencies, [Dependency { number: 1, generation: 7 }]);
    assert_eq!((report.batches, report.records), (2, 2));
}

#[test]
fn the_same_mutations_are_written_as_the_same_bytes() {
    let mut first = Batch::default();
    for (index, (version, mutation)) in puts_and_a_removal(20).iter().enumerate() {
        first.push(*version, mutation);
        if index != 1 {
            first.end_group();
        }
    }
    let mut second = Batch::default();
    for (version, mutation) in &second_batch() {
        second.push(*version, mutation);
        second.end_group();
    }
    let batches = [
        (first, (8, 19), 24, 1_700_000_000_900, -250),
        (Batch::mark(), (9, 23), 24, 1_700_000_000_950, 90_000),
        (second, (10, 23), 27, 1_700_000_001_000, 90_000),
        (Batch::clean_stop(), (11, 26), 27, 1_700_000_001_000, 90_000),
    ];
    let mut bytes = journal().encode();
    assert_eq!(bytes.len(), SEGMENT_HEADER);
    let mut link = journal().link;
    for (mut batch, (durable, version), next_version, now, offset) in batches {
        batch.stamp(Time { now, offset }, next_version);
        let durable = Durable { batch: durable, version };
        let (sealed, next) = batch.seal(journal().seed(), bytes.len() as u64, link, durable);
        bytes.extend_from_slice(sealed);
        link = next;
    }
    assert!(bytes == JOURNAL, "the bytes on disk have changed: that is a new format version");
}

#[test]
fn the_same_survivors_are_written_as_the_same_bytes() {
    let disk = FakeDisk::new();
    let begun = SegmentHeader { durable_version: 8, ..compacted() };
    let mut writer = CompactedWriter::create(&disk, begun, "new").expect("made");
    writer.rely_on(&[Dependency { number: 1, generation: 7 }]).expect("room");
    writer.at(Time { now: 1_700_000_000_789, offset: -250 });
    for (version, mutation) in &survivors() {
        writer.push(*version, mutation);
    }
    writer.finish(Some(40)).expect("room");
    let written = disk.read("new").expect("the file");
    assert!(written == COMPACTED, "the bytes on disk have changed: that is a new format version");
}

#[test]
fn a_compacted_segment_is_as_long_as_it_says_to_the_byte() {
    let header = compacted();
    let SegmentKind::Compacted(kind) = header.kind else { panic!("a compacted one") };
    let judged =
        |bytes: &[u8], file_len: usize| judge_compacted(&scan(&header, bytes, &mut |_| ()), kind, file_len as u64);
    let length = COMPACTED.len();
    assert_eq!(judged(COMPACTED, length), Verdict::Clean);
    // What is read leaves the zeros at the end of a file out.
    assert_eq!(judged(COMPACTED, length + 1), Verdict::Damage(Fault::Trailing));
    let too_short = Verdict::Damage(Fault::TooShort { length: length as u64 });
    assert_eq!(judged(&COMPACTED[..SEGMENT_HEADER], length), too_short);
    assert_eq!(judged(&COMPACTED[..SEGMENT_HEADER], SEGMENT_HEADER), too_short);
}
