//! Ends the long loops of a call after its process was killed, because its result is not needed any more.

use emmap_core::interrupt;
use rustler::sys::{enif_is_current_process_alive, enif_thread_type, ErlNifEnv};
use rustler::Env;

/// Runs `act`, whose long loops end early once the process of `env` was killed.
pub fn interruptible<T>(env: Env, act: impl FnOnce() -> T) -> T {
    // SAFETY: takes no pointers.
    match unsafe { enif_thread_type() } {
        // A thread of this library: the environment is that of a message, and no process runs.
        0 => act(),
        _ => interrupt::with(is_alive, env.as_c_arg() as usize, act),
    }
}

fn is_alive(env: usize) -> bool {
    // SAFETY: called during the NIF, on its thread, which is a scheduler, with the environment of the running NIF.
    unsafe { enif_is_current_process_alive(env as *mut ErlNifEnv) != 0 }
}
