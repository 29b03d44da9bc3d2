//! What the allocator really takes for an allocation.
//!
//! Knows mimalloc, which is the allocator of the `kvd` binary, and nothing of entries. It exists so that memory is
//! counted as it is taken: an estimate would be wrong by up to a quarter, and by another amount for every size.

/// Bytes that an allocation of this size takes: its size class, or, for a large one, whole pages.
#[cfg(not(miri))]
pub fn taken(bytes: usize) -> usize {
    // An empty allocation is none.
    if bytes == 0 {
        return 0;
    }
    // SAFETY: it has no preconditions: it looks the size up in a constant table.
    unsafe { libmimalloc_sys::mi_good_size(bytes) }
}

/// Miri has no mimalloc to ask.
#[cfg(miri)]
pub fn taken(bytes: usize) -> usize {
    bytes.next_multiple_of(16)
}

#[cfg(test)]
mod tests {
    use super::taken;

    #[test]
    fn never_less_than_asked_for_and_little_more() {
        assert_eq!(taken(0), 0);
        for bytes in (1..100_000).step_by(7) {
            let taken = taken(bytes);
            assert!(taken >= bytes && taken <= bytes + bytes / 4 + 16, "{bytes} {taken}");
        }
    }
}
