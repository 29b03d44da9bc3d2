//! Any bytes as the body of a segment whose header is valid: never a panic, and never a record that was not written.
//!
//! The first byte chooses between bytes as they are and bytes behind a real batch, so that a fuzzer gets past the first
//! checksum.
#![no_main]

use kvd::log::Secret;
use kvd::log::batch::{Batch, Durable, Link};
use kvd::log::scan::scan;
use kvd::log::segment::{HeaderState, SEGMENT_HEADER, SegmentHeader, SegmentKind};
use kvd::mutation::{Key, Mutation, Value};
use libfuzzer_sys::fuzz_target;

fn header() -> SegmentHeader {
    SegmentHeader {
        kind: SegmentKind::Journal,
        identity: 0x6b76_6420_6675_7a7a,
        secret: Some(Secret::new(0)),
        number: 1,
        epoch: 0,
        next_version: 1,
        durable_version: 0,
        link: Link { number: 1, chain: 0 },
        time: 0.into(),
    }
}

fuzz_target!(|data: &[u8]| {
    // As a header.
    if let HeaderState::Valid(found) = SegmentHeader::decode(data) {
        scan(&found, data, &mut |_| {});
    }
    // As a body.
    let Some((mode, body)) = data.split_first() else { return };
    let header = header();
    let mut bytes = header.encode();
    let mut written = 0;
    if mode & 1 == 1 {
        let mut batch = Batch::default();
        let value = Value { bytes: b"value", flags: 1, deadline: 2 };
        batch.push(1, &Mutation::Put { key: Key::bytes(b"key"), value });
        batch.end_group();
        batch.stamp(1, 2);
        let (sealed, _) = batch.seal(header.seed(), SEGMENT_HEADER as u64, header.link, Durable::default());
        bytes.extend_from_slice(sealed);
        written = 1;
    }
    bytes.extend_from_slice(body);
    let mut records = 0;
    let report = scan(&header, &bytes, &mut |batch| {
        for record in batch.records() {
            assert_eq!(record.version, 1, "a record that was never written");
            assert!(matches!(record.mutation, Mutation::Put { key, .. } if key.bytes == b"key"));
            records += 1;
        }
    });
    assert_eq!(records, written, "records given");
    assert_eq!(report.records, written);
    assert!(report.end as usize <= bytes.len());
    assert_eq!(report.fault.is_none(), body.iter().all(|byte| *byte == 0));
});
