//! One entry: everything that is known of one key, in one allocation behind one thin pointer.
//!
//! Knows its own layout, and nothing of hashes, shards or commands. Nothing outside this file sees the bytes.
//!
//! ```text
//! offset  0        8      9                                                       most at 25
//!         version  marks  key length  value length  [flags]  [deadline]  key ...  value ...
//!         8        1      1 or 4      1, 2 or 4     0 or 4   0 or 8
//! ```
//!
//! All integers are little-endian. The marks tell which of the rest is there and how wide the lengths are, so that a
//! small entry without flags and deadline has 11 bytes beyond key and value. No capacity and no reference count
//! stand beside them: an entry is never changed, but for the two bits of its access counter.

use super::allocation;
use crate::mutation::{Key, Mutation, Space, Value};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

const VERSION: usize = 0;
const MARKS: usize = 8;
const LENGTHS: usize = 9;

/// In the marks: the key lives in [`Space::Python`].
const PYTHON: u8 = 1 << 0;
/// In the marks: the key was removed by the version given.
const REMOVED: u8 = 1 << 1;
/// In the marks: there are flags.
const FLAGS: u8 = 1 << 2;
/// In the marks: there is a deadline.
const DEADLINE: u8 = 1 << 3;
/// In the marks: the access counter, and one access in it.
const FREQUENCY: u8 = 0b11 << 4;
const ONE_ACCESS: u8 = 1 << 4;
/// In the marks, the two top bits: the place in [`WIDTHS`].
const WIDTHS_SHIFT: u32 = 6;
/// How many bytes the lengths of key and value have.
const WIDTHS: [(usize, usize); 4] = [(1, 1), (1, 2), (1, 4), (4, 4)];

/// Bytes that a processor fetches at a time.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// A key with its value, deadline, flags and version; or, for as long as a removal must be remembered, a key and
/// the version that removed it.
///
/// It is aligned to 4 bytes, although it is a pointer, so that a slot of a pointer and 32 bits of hash has 12 bytes.
///
/// ```
/// use kvd::mutation::{Key, Value};
/// use kvd::table::Entry;
/// let value = Value { bytes: b"Ada", flags: 7, deadline: 1_000 };
/// let entry = Entry::new(42, Key::bytes(b"user:1"), &value);
/// assert_eq!(entry.key(), Key::bytes(b"user:1"));
/// assert_eq!((entry.value(), entry.version(), entry.flags()), (&b"Ada"[..], 42, 7));
/// assert!(!entry.is_expired(999) && entry.is_expired(1_000));
/// ```
#[repr(C, packed(4))]
pub struct Entry {
    /// The one owner of an allocation of [`Shape::size`] bytes, laid out as above.
    bytes: NonNull<u8>,
}

// SAFETY: an entry owns its allocation, as a `Box<[u8]>` would. Through a shared reference only the marks change,
// and these are only ever accessed as an atomic.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// Where key and value stand.
struct Shape {
    key_at: usize,
    value_at: usize,
    /// Of the whole allocation.
    size: usize,
}

impl Entry {
    /// An entry that holds a value.
    pub fn new(version: u64, key: Key<'_>, value: &Value<'_>) -> Self {
        Self::joined(version, key, value, [b"", b""])
    }

    /// An entry whose value is that of `value` and then `more`, without a copy between: what APPEND needs, and a SET whose
    /// value is its message but for one byte.
    ///
    /// # Panics
    /// If key or value is longer than 4 GiB, which no dialect and no record lets through.
    pub fn joined(version: u64, key: Key<'_>, value: &Value<'_>, more: [&[u8]; 2]) -> Self {
        Self::build(version, key, 0, value, more)
    }

    /// A tombstone: `version` removed the key.
    pub fn removal(version: u64, key: Key<'_>) -> Self {
        Self::build(version, key, REMOVED, &Value { bytes: b"", flags: 0, deadline: 0 }, [b"", b""])
    }

    fn build(version: u64, key: Key<'_>, removed: u8, value: &Value<'_>, more: [&[u8]; 2]) -> Self {
        let length = |length: usize| u32::try_from(length).expect("keys and values are kept below 4 GiB");
        let (key_length, value_length) =
            (length(key.bytes.len()), length(value.bytes.len() + more[0].len() + more[1].len()));
        let widths = match (key_length, value_length) {
            (..=0xff, ..=0xff) => 0,
            (..=0xff, ..=0xffff) => 1,
            (..=0xff, _) => 2,
            _ => 3,
        };
        let mut marks = removed | (widths as u8) << WIDTHS_SHIFT;
        marks |= if key.space == Space::Python { PYTHON } else { 0 };
        marks |= if value.flags == 0 { 0 } else { FLAGS };
        marks |= if value.deadline == 0 { 0 } else { DEADLINE };
        let (key_width, value_width) = WIDTHS[widths];
        let flags_width = if value.flags == 0 { 0 } else { 4 };
        let deadline_width = if value.deadline == 0 { 0 } else { 8 };
        let parts = [
            &version.to_le_bytes()[..],
            &[marks],
            &key_length.to_le_bytes()[..key_width],
            &value_length.to_le_bytes()[..value_width],
            &value.flags.to_le_bytes()[..flags_width],
            &value.deadline.to_le_bytes()[..deadline_width],
            key.bytes,
            value.bytes,
            more[0],
            more[1],
        ];
        let size = parts.iter().map(|part| part.len()).sum();
        let layout = layout(size);
        // SAFETY: the size is not 0: the version alone has 8 bytes.
        let Some(bytes) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        let mut at = 0;
        for part in parts {
            // SAFETY: the allocation is as long as all parts together, and new, so that no part lies in it.
            unsafe { bytes.add(at).copy_from_nonoverlapping(NonNull::from(part).cast(), part.len()) };
            at += part.len();
        }
        Entry { bytes }
    }

    /// The key.
    pub fn key(&self) -> Key<'_> {
        let marks = self.marks();
        let space = if marks & PYTHON == 0 { Space::Bytes } else { Space::Python };
        let Shape { key_at, value_at, .. } = self.shape(marks);
        Key { space, bytes: self.slice(key_at, value_at) }
    }

    /// The value; empty in a tombstone.
    pub fn value(&self) -> &[u8] {
        let Shape { value_at, size, .. } = self.shape(self.marks());
        self.slice(value_at, size)
    }

    /// The version that wrote it.
    pub fn version(&self) -> u64 {
        u64::from_le_bytes(self.field(VERSION))
    }

    /// Unix time in milliseconds at which it expires; 0 is never.
    pub fn deadline(&self) -> u64 {
        let marks = self.marks();
        if marks & DEADLINE == 0 {
            return 0;
        }
        u64::from_le_bytes(self.field(self.shape(marks).key_at - 8))
    }

    /// 31 bits of the client's, and [`crate::mutation::PICKLED`] on top.
    pub fn flags(&self) -> u32 {
        let marks = self.marks();
        if marks & FLAGS == 0 {
            return 0;
        }
        let (key_width, value_width) = WIDTHS[usize::from(marks >> WIDTHS_SHIFT)];
        u32::from_le_bytes(self.field(LENGTHS + key_width + value_width))
    }

    /// Whether its deadline has come by `now`, a Unix time in milliseconds.
    pub fn is_expired(&self, now: u64) -> bool {
        let deadline = self.deadline();
        deadline != 0 && deadline <= now
    }

    /// Whether it is a tombstone.
    pub fn is_removal(&self) -> bool {
        self.marks() & REMOVED != 0
    }

    /// The mutation that makes this entry; its version travels beside it.
    pub fn mutation(&self) -> Mutation<'_> {
        let key = self.key();
        if self.is_removal() {
            Mutation::Remove { key }
        } else {
            let value = Value { bytes: self.value(), flags: self.flags(), deadline: self.deadline() };
            Mutation::Put { key, value }
        }
    }

    /// Bytes of memory that the allocation takes.
    pub fn memory(&self) -> usize {
        allocation::taken(self.shape(self.marks()).size)
    }

    /// Notes an access: the first one makes 2 of 0 or 1, the next one 3, which is the most.
    ///
    /// Accesses at one time may count as one: the counter is a hint, and not worth a locked instruction.
    pub fn touch(&self) {
        let marks = self.marks();
        if marks & FREQUENCY != FREQUENCY {
            self.set_frequency((self.frequency() + 1).max(2));
        }
    }

    /// Takes over the accesses of the entry that this one replaces; the replacement counts as one more.
    pub fn inherit(&self, replaced: &Entry) {
        self.set_frequency(self.frequency().max(replaced.frequency()));
        self.touch();
    }

    /// Ends its probation, where nobody has accessed it: see [`super::Table::victim`].
    pub fn promote(&self) {
        if self.frequency() == 0 {
            self.set_frequency(1);
        }
    }

    /// How often it was accessed, lately: 0 to 3.
    pub fn frequency(&self) -> u8 {
        (self.marks() & FREQUENCY) / ONE_ACCESS
    }

    /// Takes one access back, so that what was popular once does not stay so for ever.
    pub fn cool(&self) {
        let marks = self.marks();
        if marks & FREQUENCY != 0 {
            self.atomic_marks().store(marks - ONE_ACCESS, Ordering::Relaxed);
        }
    }

    /// Has the processor fetch the first two lines of it: all of a small entry.
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let bytes = self.bytes.as_ptr().cast::<i8>();
            // SAFETY: a hint: whatever the address, nothing is read or written that anybody could see.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes) };
            // SAFETY: as above; the address may lie behind the end, and is never followed.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(LINE)) };
        }
    }

    fn set_frequency(&self, frequency: u8) {
        let marks = (self.marks() & !FREQUENCY) | (frequency * ONE_ACCESS);
        self.atomic_marks().store(marks, Ordering::Relaxed);
    }

    fn marks(&self) -> u8 {
        self.atomic_marks().load(Ordering::Relaxed)
    }

    fn atomic_marks(&self) -> &AtomicU8 {
        // SAFETY: the byte is within the allocation, which lives as long as `self`; once built, it is accessed
        // in no other way than this one.
        unsafe { AtomicU8::from_ptr(self.bytes.as_ptr().add(MARKS)) }
    }

    fn shape(&self, marks: u8) -> Shape {
        let (key_width, value_width) = WIDTHS[usize::from(marks >> WIDTHS_SHIFT)];
        let key_length = self.length(LENGTHS, key_width);
        let value_length = self.length(LENGTHS + key_width, value_width);
        let flags_width = if marks & FLAGS == 0 { 0 } else { 4 };
        let deadline_width = if marks & DEADLINE == 0 { 0 } else { 8 };
        let key_at = LENGTHS + key_width + value_width + flags_width + deadline_width;
        let value_at = key_at + key_length;
        Shape { key_at, value_at, size: value_at + value_length }
    }

    fn length(&self, at: usize, width: usize) -> usize {
        match width {
            1 => usize::from(self.field::<1>(at)[0]),
            2 => usize::from(u16::from_le_bytes(self.field(at))),
            _ => u32::from_le_bytes(self.field(at)) as usize,
        }
    }

    /// The bytes of a field of the header. Private to this file, whose callers name none but those that the marks
    /// say are there, and never the marks themselves.
    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        debug_assert!(at + N <= MARKS || at > MARKS);
        // SAFETY: `build` wrote every field that the marks tell of, so that these bytes are within the allocation
        // and initialised. They are not the marks, so nothing changes them. An array of bytes is aligned anywhere.
        unsafe { self.bytes.add(at).cast::<[u8; N]>().read() }
    }

    /// The bytes of key or value.
    fn slice(&self, from: usize, to: usize) -> &[u8] {
        // SAFETY: both bounds come from `shape`, thus from what `build` wrote: they lie within the allocation, behind
        // the marks, and in order; the bytes are initialised, never change, and live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr().add(from), to - from) }
    }
}

/// Bytes are aligned anywhere. (The allocator aligns to 8 or 16 by itself.)
fn layout(size: usize) -> Layout {
    Layout::array::<u8>(size).expect("two lengths of 32 bits and a header are no overflow")
}

impl Drop for Entry {
    fn drop(&mut self) {
        let layout = layout(self.shape(self.marks()).size);
        // SAFETY: `build` allocated it with this layout, and nobody else owns it.
        unsafe { dealloc(self.bytes.as_ptr(), layout) };
    }
}

/// The copy was not accessed yet.
impl Clone for Entry {
    fn clone(&self) -> Self {
        let value = Value { bytes: self.value(), flags: self.flags(), deadline: self.deadline() };
        Self::build(self.version(), self.key(), self.marks() & REMOVED, &value, [b"", b""])
    }
}

/// How often they were accessed makes no difference.
impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.version() == other.version() && self.mutation() == other.mutation()
    }
}

impl Eq for Entry {}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entry = f.debug_struct("Entry");
        entry.field("version", &self.version()).field("key", &self.key());
        if self.is_removal() {
            return entry.field("removed", &true).finish();
        }
        entry.field("value", &self.value().escape_ascii().to_string());
        entry.field("flags", &self.flags()).field("deadline", &self.deadline()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutation::PICKLED;
    use proptest::prelude::*;

    #[test]
    fn holds_what_it_was_given() {
        let value = Value { bytes: b"front", flags: PICKLED | 5, deadline: u64::MAX };
        let key = Key { space: Space::Python, bytes: b"\0\xff" };
        let entry = Entry::joined(u64::MAX, key, &value, [b"ba", b"ck"]);
        assert_eq!(entry.key(), key);
        assert_eq!(entry.value(), b"frontback");
        assert_eq!((entry.version(), entry.deadline(), entry.flags()), (u64::MAX, u64::MAX, PICKLED | 5));
        assert!(!entry.is_removal());
    }

    #[test]
    fn an_empty_value_is_a_value() {
        let key = Key::bytes(b"k");
        let entry = Entry::new(1, key, &Value { bytes: b"", flags: 0, deadline: 0 });
        assert_eq!(entry.value(), b"");
        assert!(!entry.is_removal());
        assert_ne!(entry, Entry::removal(1, key));
    }

    #[test]
    fn a_tombstone_keeps_key_and_version() {
        let entry = Entry::removal(9, Key::bytes(b"gone"));
        assert!(entry.is_removal() && !entry.is_expired(u64::MAX));
        assert_eq!((entry.key(), entry.version()), (Key::bytes(b"gone"), 9));
        assert_eq!(entry.mutation(), Mutation::Remove { key: Key::bytes(b"gone") });
    }

    #[test]
    fn deadline_zero_never_comes() {
        let entry = Entry::new(1, Key::bytes(b"k"), &Value { bytes: b"", flags: 0, deadline: 0 });
        assert!(!entry.is_expired(u64::MAX));
    }

    #[test]
    fn a_small_entry_has_eleven_bytes_of_its_own() {
        let plain = Value { bytes: &[7; 100], flags: 0, deadline: 0 };
        let size = |entry: &Entry| entry.shape(entry.marks()).size;
        assert_eq!(size(&Entry::new(1, Key::bytes(&[7; 16]), &plain)), 127);
        assert_eq!(size(&Entry::new(1, Key::bytes(&[7; 16]), &Value { flags: 1, deadline: 1, ..plain })), 139);
        assert_eq!((size_of::<Entry>(), align_of::<Entry>(), size_of::<Option<Entry>>()), (8, 4, 8));
    }

    #[test]
    fn accesses_are_counted_up_to_three_and_make_no_difference() {
        let entry = Entry::new(1, Key::bytes(b"k"), &Value { bytes: b"v", flags: 1, deadline: 1 });
        let untouched = entry.clone();
        entry.cool();
        for expected in [0, 2, 3, 3] {
            assert_eq!(entry.frequency(), expected);
            entry.touch();
        }
        assert_eq!((&entry, entry.clone().frequency()), (&untouched, 0));
        for expected in [3, 2, 1, 0, 0] {
            assert_eq!(entry.frequency(), expected);
            entry.cool();
        }
        assert_eq!(entry.value(), b"v");
    }

    #[test]
    fn entries_go_to_other_threads() {
        let entry = Entry::new(1, Key::bytes(b"k"), &Value { bytes: b"v", flags: 0, deadline: 0 });
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (entry.touch(), entry.cool(), entry.value().len()));
            }
        });
        assert_eq!(std::thread::spawn(move || entry.value().to_vec()).join().ok().as_deref(), Some(&b"v"[..]));
    }

    /// Around the bounds between the widths of the lengths, and anywhere.
    fn length(most: usize) -> impl Strategy<Value = usize> {
        let bounds = vec![0, 1, 254, 255, 256, 257, 65_534, 65_535, 65_536, 65_537];
        prop_oneof![3 => 0..=64_usize, 1 => prop::sample::select(bounds).prop_map(move |at| at.min(most))]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            cases: if cfg!(miri) { 24 } else { 512 },
            ..ProptestConfig::default()
        })]

        #[test]
        fn entries_of_all_shapes_hold_what_they_were_given(
            (key, front, back) in (length(65_536), length(70_000), length(70_000)),
            version: u64,
            flags in prop_oneof![Just(0), any::<u32>()],
            deadline in prop_oneof![Just(0), any::<u64>()],
            python: bool,
        ) {
            let bytes = |length: usize, seed: u8| (0..length).map(|at| (at as u8).wrapping_add(seed)).collect::<Vec<_>>();
            let (key, front, back) = (bytes(key, 1), bytes(front, 2), bytes(back, 3));
            let key = Key { space: if python { Space::Python } else { Space::Bytes }, bytes: &key };
            let (middle, end) = back.split_at(back.len() / 3);
            let entry = Entry::joined(version, key, &Value { bytes: &front, flags, deadline }, [middle, end]);
            let whole = [&front[..], &back].concat();
            let value = Value { bytes: &whole, flags, deadline };
            prop_assert_eq!(entry.mutation(), Mutation::Put { key, value });
            prop_assert_eq!(entry.version(), version);
            prop_assert!(entry.memory() >= key.bytes.len() + whole.len() + 11);
            prop_assert_eq!(&entry.clone(), &entry);
            prop_assert_eq!(&Entry::new(version, key, &value), &entry);
            let removal = Entry::removal(version, key);
            prop_assert_eq!(removal.mutation(), Mutation::Remove { key });
            prop_assert!(removal != entry);
        }
    }
}
