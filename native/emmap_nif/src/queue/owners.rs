//! Which process has checked out what: each gets a number, which its claims have in the file, and is monitored.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use rustler::sys::ErlNifPid;
use rustler::{LocalPid, ResourceArc};

use super::OpenQueue;
use crate::hot::Call;

#[derive(Default)]
pub struct Owners(Mutex<HashMap<usize, u32>>);

/// The number of a process that was never given before.
static NEXT: AtomicU32 = AtomicU32::new(1);

/// The term that a local pid is: no two processes that live have the same.
fn key(pid: &ErlNifPid) -> usize {
    // SAFETY: a pid is a term, and a term is a word.
    unsafe { std::mem::transmute_copy::<ErlNifPid, usize>(pid) }
}

impl Owners {
    /// The number of the process that calls.
    #[inline(always)]
    pub fn owner(call: &Call, queue: &ResourceArc<OpenQueue>) -> u32 {
        let pid = call.pid();
        let mut owners = queue.owners.lock();
        match owners.get(&key(&pid)) {
            Some(owner) => *owner,
            None => {
                let owner = NEXT.fetch_add(1, Ordering::Relaxed);
                owners.insert(key(&pid), owner);
                drop(owners);
                let pid = LocalPid::from_c_arg(pid);
                let monitor = match call.own_env() {
                    true => call.with_env(|env| queue.monitor(Some(env), &pid)),
                    false => queue.monitor(None, &pid),
                };
                if monitor.is_none() {
                    // It is being killed: its claims end with this call.
                    queue.owners.lock().remove(&key(pid.as_c_arg()));
                    super::notify::release(&queue.part, owner);
                }
                owner
            }
        }
    }

    pub fn remove(&self, pid: &LocalPid) -> Option<u32> {
        self.lock().remove(&key(pid.as_c_arg()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<usize, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
