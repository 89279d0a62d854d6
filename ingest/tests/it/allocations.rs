//! Counts what the calling thread allocates, so that tests can hold decoders to their promise.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn account(change: isize) {
    let held = HELD.get() + change;
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
    if change > 0 {
        COUNT.set(COUNT.get() + 1);
    }
}

#[expect(
    unsafe_code,
    reason = "every call is passed on unchanged to the system's allocator, whose contract holds"
)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        account(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        account(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new block exist side by side for a moment.
        account(size as isize);
        let moved = unsafe { System.realloc(pointer, layout, size) };
        account(-(layout.size() as isize));
        moved
    }
}

/// What a piece of work allocated.
#[derive(Debug)]
pub struct Allocated {
    /// How often.
    pub count: u64,
    /// Most bytes held at once beyond what was held before.
    pub peak: usize,
}

/// Runs `work` and counts.
pub fn during<T>(work: impl FnOnce() -> T) -> (T, Allocated) {
    let (count, held) = (COUNT.get(), HELD.get());
    PEAK.set(held);
    let result = work();
    (result, Allocated { count: COUNT.get() - count, peak: (PEAK.get() - held) as usize })
}
