//! What the fuzzers share: the targets, and a limit to what they may allocate at once.

pub mod targets;

use std::alloc::{GlobalAlloc, Layout, System};

#[doc(hidden)]
pub use libfuzzer_sys;

/// Most bytes that may be allocated at once. Inputs are far smaller: more is a length that somebody claimed.
const MOST: usize = 64 << 20;

/// The system's allocator, which does not take everything on trust.
struct Bounded;

fn check(size: usize) {
    if size > MOST {
        eprintln!("== {size} bytes at once");
        std::process::abort();
    }
}

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check(size);
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

/// The name by which this program was called, without its directory.
pub fn called() -> &'static str {
    let program = std::env::args().next().unwrap_or_default();
    program.rsplit('/').next().unwrap_or_default().to_owned().leak()
}

/// The program that fuzzes one target.
#[macro_export]
macro_rules! fuzz {
    ($name:expr) => {
        static TARGET: std::sync::LazyLock<fn(&[u8])> =
            std::sync::LazyLock::new(|| drover_fuzz::targets::named($name).expect("no target has this name"));
        drover_fuzz::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
    };
}
