//! What is found in a damaged segment: everything whole, nothing else, and how much was given up.

use kvd::log::batch::BATCH_HEADER;
use kvd::log::fs::FakeDisk;
use kvd::log::record::RECORD_HEADER;
use kvd::log::salvage::{Salvaged, salvage};
use kvd::log::segment::{HeaderState, SEGMENT_HEADER, SegmentHeader, file_name};
use kvd::log::{Batch, Secret, Writer};
use kvd::mutation::{Key, Mutation, Space, Value};
use std::ops::Range;
use std::sync::Arc;

/// A segment, and where each of its groups stands.
struct Log {
    bytes: Vec<u8>,
    header: SegmentHeader,
    groups: Vec<Group>,
    /// Where each batch's header stands.
    batches: Vec<Range<usize>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Group {
    versions: Vec<u64>,
    at: Range<usize>,
    /// Where each of its records stands.
    records: Vec<Range<usize>>,
}

/// A log of 64 records in groups of one to three, three groups a batch.
fn log() -> Log {
    let disk = FakeDisk::new();
    let mut writer = Writer::create(Arc::new(disk.clone()), 1 << 20, 7, Secret::new(2)).expect("a new store");
    let (mut version, mut position, mut groups, mut batches) = (0, SEGMENT_HEADER, Vec::new(), Vec::new());
    while version < 64 {
        let mut batch = Batch::default();
        for group in 0..3 {
            let start = position + batch.byte_len();
            let (mut versions, mut records) = (Vec::new(), Vec::new());
            for _ in 0..=(version + group) % 3 {
                version += 1;
                let name = format!("key-{version:03}");
                let value = Value { bytes: &[version as u8; 20], flags: version as u32 % 2, deadline: 0 };
                let mutation = match version % 7 {
                    0 => Mutation::Remove { key: Key::bytes(name.as_bytes()) },
                    1 => Mutation::Flush { prefix: Some(b"nothing") },
                    _ => Mutation::Put { key: Key::bytes(name.as_bytes()), value },
                };
                let from = position + batch.byte_len();
                batch.push(version, &mutation);
                versions.push(version);
                records.push(from..position + batch.byte_len());
            }
            batch.end_group();
            groups.push(Group { versions, at: start..position + batch.byte_len(), records });
        }
        batch.stamp(version, version + 1);
        batches.push(position..position + BATCH_HEADER);
        position += batch.byte_len();
        writer.append(&mut batch).expect("room");
    }
    let mut bytes = disk.read(&file_name(1)).expect("the segment");
    bytes.truncate(position);
    let HeaderState::Valid(header) = SegmentHeader::decode(&bytes) else { panic!("a valid header") };
    Log { bytes, header, groups, batches }
}

/// The versions of every group that is found, and what else is told.
fn found(header: &SegmentHeader, bytes: &[u8]) -> (Vec<Vec<u64>>, Salvaged) {
    let mut groups = Vec::new();
    let salvaged = salvage(header, bytes, &mut |group| {
        groups.push(group.iter().map(|record| record.version).collect());
    });
    (groups, salvaged)
}

fn versions(groups: &[Group]) -> Vec<Vec<u64>> {
    groups.iter().map(|group| group.versions.clone()).collect()
}

/// Whether a gap says that this version may have been lost.
fn covers(salvaged: &Salvaged, version: u64) -> bool {
    salvaged.gaps.iter().any(|gap| gap.first_version <= version && gap.end_version.is_none_or(|end| version < end))
}

#[test]
fn of_an_undamaged_segment_everything_is_found() {
    let log = log();
    let (groups, salvaged) = found(&log.header, &log.bytes);
    assert_eq!(groups, versions(&log.groups));
    assert_eq!(salvaged.gaps, []);
    let last = *log.groups.last().expect("groups").versions.last().expect("records");
    assert_eq!((salvaged.records, salvaged.next_version), (last, last + 1));
    assert_eq!(salvaged.next_batch, log.batches.len() as u64 + 1);
}

#[test]
fn one_flipped_bit_costs_one_group_at_most() {
    let log = log();
    for bit in SEGMENT_HEADER * 8..log.bytes.len() * 8 {
        let mut bytes = log.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let hit: Vec<_> = log.groups.iter().filter(|group| group.at.contains(&(bit / 8))).collect();
        let (groups, salvaged) = found(&log.header, &bytes);
        let left: Vec<_> = log.groups.iter().filter(|group| !hit.contains(group)).cloned().collect();
        assert_eq!(groups, versions(&left), "bit {bit}");
        assert_eq!(salvaged.gaps.len(), 1, "bit {bit}");
        for version in hit.iter().flat_map(|group| &group.versions) {
            assert!(covers(&salvaged, *version), "bit {bit}: version {version} in {:?}", salvaged.gaps);
        }
        if hit.is_empty() {
            assert!(salvaged.gaps[0].end_version.is_none_or(|end| end == salvaged.gaps[0].first_version), "bit {bit}");
        }
    }
}

#[test]
fn a_gap_is_the_group_that_a_record_was_lost_of() {
    let log = log();
    for (index, group) in log.groups.iter().enumerate() {
        for (lost, record) in group.records.iter().enumerate() {
            let mut bytes = log.bytes.clone();
            bytes[record.end - 1] ^= 1;
            let (_, salvaged) = found(&log.header, &bytes);
            let [gap] = &salvaged.gaps[..] else { panic!("{:?}", salvaged.gaps) };
            let next = log.groups.get(index + 1);
            let from = if lost == 0 { record.start } else { group.at.start };
            let to = next.map_or(bytes.len(), |next| next.at.start);
            assert_eq!(gap.from..gap.to, from as u64..to as u64, "{group:?}");
            assert_eq!((gap.first_version, gap.end_version), (group.versions[0], next.map(|next| next.versions[0])));
            let given_up: Vec<_> = gap.given_up.iter().map(|lost| lost.version).collect();
            let others: Vec<_> =
                group.versions.iter().copied().filter(|version| *version != group.versions[lost]).collect();
            assert_eq!(given_up, others, "the other records of {group:?}");
            for lost in &gap.given_up {
                let name = format!("key-{:03}", lost.version);
                let key = (lost.version % 7 != 1).then(|| (Space::Bytes, name.as_bytes().into()));
                assert_eq!(lost.key, key);
            }
        }
    }
}

#[test]
fn a_record_whose_version_does_not_rise_is_not_believed() {
    // Two segments alike to the byte, but for versions: what one holds in a place is right by its checksum in the other.
    let segment = |versions: &[u64], in_one_group: bool| {
        let disk = FakeDisk::new();
        let mut writer = Writer::create(Arc::new(disk.clone()), 1 << 20, 7, Secret::new(2)).expect("a new store");
        let (mut batch, mut ends) = (Batch::default(), vec![SEGMENT_HEADER + BATCH_HEADER]);
        for version in versions {
            let value = Value { bytes: b"value", flags: 0, deadline: 0 };
            batch.push(*version, &Mutation::Put { key: Key::bytes(b"key"), value });
            if !in_one_group {
                batch.end_group();
            }
            ends.push(SEGMENT_HEADER + batch.byte_len());
        }
        batch.end_group();
        batch.stamp(1, 100);
        writer.append(&mut batch).expect("room");
        (disk.read(&file_name(1)).expect("the segment"), ends)
    };
    let (bytes, ends) = segment(&[10, 20, 30, 40], false);
    let (group, _) = segment(&[10, 20, 30, 40], true);
    let HeaderState::Valid(header) = SegmentHeader::decode(&bytes) else { panic!("a valid header") };
    for (version, is_believed) in [(9, false), (10, false), (20, false), (21, true), (39, true)] {
        let with_third = |of: &[u8], in_one_group| {
            let (other, _) = segment(&[10, 20, version, 40], in_one_group);
            let mut bytes = of.to_vec();
            bytes[ends[2]..ends[3]].copy_from_slice(&other[ends[2]..ends[3]]);
            found(&header, &bytes)
        };
        let (groups, salvaged) = with_third(&bytes, false);
        let third = is_believed.then(|| vec![version]);
        assert_eq!(
            groups,
            [Some(vec![10]), Some(vec![20]), third, Some(vec![40])].into_iter().flatten().collect::<Vec<_>>()
        );
        assert_eq!(salvaged.gaps.len(), usize::from(!is_believed));
        let (groups, salvaged) = with_third(&group, true);
        assert_eq!(groups, is_believed.then(|| vec![10, 20, version, 40]).into_iter().collect::<Vec<_>>());
        assert_eq!(salvaged.gaps.len(), usize::from(!is_believed));
    }
}

#[test]
fn a_stretch_that_was_overwritten_costs_the_groups_that_it_touches() {
    let log = log();
    for from in (SEGMENT_HEADER..log.bytes.len()).step_by(37) {
        for length in [1, 60, 512, 3000] {
            for filling in [0, 0xb7, 0xff] {
                let to = (from + length).min(log.bytes.len());
                let mut bytes = log.bytes.clone();
                bytes[from..to].fill(filling);
                let left: Vec<_> = log
                    .groups
                    .iter()
                    .filter(|group| log.bytes[group.at.clone()] == bytes[group.at.clone()])
                    .cloned()
                    .collect();
                let (groups, salvaged) = found(&log.header, &bytes);
                assert_eq!(groups, versions(&left), "{filling:02x} from {from} to {to}");
                for group in log.groups.iter().filter(|group| !left.contains(group)) {
                    assert!(group.versions.iter().all(|version| covers(&salvaged, *version)), "{from} to {to}");
                }
            }
        }
    }
}

#[test]
fn what_is_moved_or_doubled_is_not_believed() {
    let log = log();
    let expected = versions(&log.groups);
    for (index, group) in log.groups.iter().enumerate() {
        let other = log.groups[(index + 9) % log.groups.len()].at.clone();
        if other.len() != group.at.len() {
            continue;
        }
        let mut bytes = log.bytes.clone();
        bytes.copy_within(other, group.at.start);
        let (groups, _) = found(&log.header, &bytes);
        assert_eq!(groups, [&expected[..index], &expected[index + 1..]].concat());
    }
    // A whole batch, behind the end and in place of another.
    let second = log.batches[1].start..log.batches[2].start;
    let (groups, _) = found(&log.header, &[&log.bytes[..], &log.bytes[second.clone()]].concat());
    assert_eq!(groups, expected);
    let mut bytes = log.bytes.clone();
    bytes.copy_within(second.clone(), SEGMENT_HEADER);
    let (groups, _) = found(&log.header, &bytes);
    assert!(groups.iter().all(|group| expected.contains(group)));
    assert_eq!(groups.last(), expected.last());
}

#[test]
fn records_inside_of_a_value_are_never_taken_for_records() {
    // A value that holds a whole other segment, damaged around it.
    let inner = log().bytes;
    let disk = FakeDisk::new();
    let mut writer = Writer::create(Arc::new(disk.clone()), 1 << 20, 7, Secret::new(2)).expect("a new store");
    let mut batch = Batch::default();
    for (version, value) in [(1, &b"before"[..]), (2, &inner), (3, b"after")] {
        let value = Value { bytes: value, flags: 0, deadline: 0 };
        batch.push(version, &Mutation::Put { key: Key::bytes(b"key"), value });
        batch.end_group();
    }
    batch.stamp(1, 4);
    writer.append(&mut batch).expect("room");
    let whole = disk.read(&file_name(1)).expect("the segment");
    let HeaderState::Valid(header) = SegmentHeader::decode(&whole) else { panic!("a valid header") };
    let second = SEGMENT_HEADER + BATCH_HEADER + RECORD_HEADER + 6 + 3 + 6;
    for damaged in [second + 4, second + 6, second + 100] {
        let mut bytes = whole.clone();
        bytes[damaged] ^= 0x10;
        bytes[SEGMENT_HEADER + 5] ^= 1;
        let (groups, _) = found(&header, &bytes);
        assert_eq!(groups, [[1], [3]], "damaged at {damaged}");
    }
}
