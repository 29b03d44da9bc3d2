//! What the allocator really takes for an allocation, and how it is kept from pausing.
//!
//! Knows mimalloc, which is the allocator of the `kvd` binary, and nothing of entries. It exists so that memory is
//! counted as it is taken: an estimate would be wrong by up to a quarter, and by another amount for every size.

use std::ffi::c_int;

/// `mi_option_purge_delay`, which the binding does not name.
const PURGE_DELAY: c_int = 15;

/// Sets the process up so that neither taking memory nor giving it back stops everybody for milliseconds. To be called
/// before there are threads.
///
/// Left alone, mimalloc asks for huge pages, of which the first touch of each clears 2 MiB (6 ms on a virtual machine
/// whose host has yet to find the memory), and gives memory back a second later, all that was freed in that time at
/// once (30 ms after a flush of 5 million keys). Now the kernel hands out small pages, and each page is given back when
/// its last entry is freed.
pub fn avoid_pauses() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages stay as they are: {error}");
    }
    // SAFETY: it stores a number in a static array; the caller sees to it that no other thread reads it.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 0) };
}

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
    use super::*;

    /// Its default is 1 s, and no other option's is 1000.
    #[test]
    #[cfg_attr(miri, ignore)]
    fn the_option_is_the_one_that_is_meant() {
        // SAFETY: it reads a number from a static array, and this test process changes none.
        assert_eq!(unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) }, 1000);
    }

    #[test]
    fn never_less_than_asked_for_and_little_more() {
        assert_eq!(taken(0), 0);
        for bytes in (1..100_000).step_by(7) {
            let taken = taken(bytes);
            assert!(taken >= bytes && taken <= bytes + bytes / 4 + 16, "{bytes} {taken}");
        }
    }
}
