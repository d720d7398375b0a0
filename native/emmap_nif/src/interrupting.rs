//! Ends the long loops of a call once the process that made it was killed: nobody will see what it returns.

use emmap_core::interrupt;
use rustler::sys::{enif_is_current_process_alive, enif_thread_type, ErlNifEnv};
use rustler::Env;

/// Runs `act`, whose long loops end early once the process of `env` was killed.
pub fn interruptible<T>(env: Env, act: impl FnOnce() -> T) -> T {
    // SAFETY: takes no pointers.
    match unsafe { enif_thread_type() } {
        // A thread of our own, where the environment is that of a message, and no process runs.
        0 => act(),
        _ => interrupt::with(is_alive, env.as_c_arg() as usize, act),
    }
}

fn is_alive(env: usize) -> bool {
    // SAFETY: asked during the call, on its thread, which is a scheduler, of the environment of the running NIF.
    unsafe { enif_is_current_process_alive(env as *mut ErlNifEnv) != 0 }
}
