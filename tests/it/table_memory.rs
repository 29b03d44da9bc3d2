//! The table's count of its memory against the allocator's own: within 5%, filled, rewritten, swept and expired.

use kvd::mutation::{Key, Value};
use kvd::table::{Entry, Table};
use libmimalloc_sys::mi_usable_size;
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;

/// mimalloc, as in the daemon, and beside it a count of what this thread holds.
struct Counting(mimalloc::MiMalloc);

#[global_allocator]
static ALLOCATOR: Counting = Counting(mimalloc::MiMalloc);

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

fn count(pointer: *mut u8, change: fn(usize, usize) -> usize) -> *mut u8 {
    // SAFETY: the pointer is one of mimalloc's, not yet freed, or null.
    let size = unsafe { mi_usable_size(pointer.cast()) };
    HELD.set(change(HELD.get(), size));
    pointer
}

// SAFETY: everything is left to mimalloc. Counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that mimalloc wants; here and below.
        count(unsafe { self.0.alloc(layout) }, usize::wrapping_add)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        count(unsafe { self.0.alloc_zeroed(layout) }, usize::wrapping_add)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.0.dealloc(count(pointer, usize::wrapping_sub), layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(pointer, usize::wrapping_sub);
        // SAFETY: as above. kvd aborts if it fails, so that the count of a pointer that stays makes no difference.
        count(unsafe { self.0.realloc(pointer, layout, size) }, usize::wrapping_add)
    }
}

fn put(table: &mut Table, version: u64, key: u64, length: usize, deadline: u64) {
    let key = key.to_le_bytes();
    let bytes = vec![7; length];
    let probe = table.probe(Key::bytes(&key));
    let entry = Entry::new(version, probe.key, &Value { bytes: &bytes, flags: 0, deadline });
    table.put(probe.hash, entry, &mut |_, _| ());
}

#[test]
fn what_the_table_counts_is_what_the_allocator_gave() {
    let before = HELD.get();
    let mut table = Table::new(1);
    let check = |table: &Table, when: &str| {
        let held = HELD.get() - before;
        let counted = table.memory();
        // The slots of a shard are aligned to 16 bytes, for which mimalloc may take as many more.
        let allowed = held / 20 + 16 * 1024;
        assert!(counted.abs_diff(held) <= allowed, "{when}: {counted} counted, {held} held");
    };
    for key in 0..200_000_u64 {
        // All sizes up to 1.5 KB, and some large ones.
        let length = if key % 1_000 == 0 { 70_000 } else { (key * 7 % 1_500) as usize };
        put(&mut table, key, key, length, u64::from(key % 3 == 0));
    }
    check(&table, "filled");
    for key in 0..100_000 {
        put(&mut table, 200_000 + key, key, 10, 0);
    }
    check(&table, "rewritten");
    while table.expire(1, 1_000, &mut |_, _| ()) {}
    check(&table, "expired");
    table.begin_flush(None, 300_000);
    for key in 0..1_000 {
        put(&mut table, 300_001 + key, key, 10, 0);
    }
    while table.sweeping().is_some() {
        table.sweep(50_000, &mut |_, _| ());
        check(&table, "being swept");
    }
    assert_eq!(table.len(), 1_000);
}
