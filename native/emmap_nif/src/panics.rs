//! NIFs that panic, for `test/emmap/panic_test.exs`. They exist only in builds with the feature `panics`.

use emmap_core::region::Wait;
use rustler::sys::ErlNifTerm;

use crate::hot::{hot_nif, Call, Early, Scheduler};

hot_nif!("panic_hot" / 0 = panic_hot);
hot_nif!("panic_elsewhere" / 0 = panic_elsewhere, DirtyIo);

fn panic_hot(_call: &Call) -> Result<ErlNifTerm, Early> {
    panic_quietly()
}

// Panics where it may wait.
fn panic_elsewhere<S: Scheduler>(_call: &Call) -> Result<ErlNifTerm, Early> {
    match S::WAIT {
        Wait::No => Err(Early::Again),
        Wait::Yes => panic_quietly(),
    }
}

#[rustler::nif(schedule = "Normal")]
fn panic_cold() -> bool {
    panic_quietly()
}

/// Without a message on the terminal of the tests.
fn panic_quietly() -> ! {
    std::panic::set_hook(Box::new(|_| ()));
    panic!("on purpose")
}
