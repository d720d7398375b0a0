//! Processes that wait for a word of a map to change: see `emmap_core::word_waits`.

use std::sync::{Arc, OnceLock};

use emmap_core::word_waits::{notify, Keeper, Ticket, Told, Waited, WAITS};
use emmap_core::{Errno, Region};
use rustler::sys::ErlNifTerm;
use rustler::{Encoder, Env, LocalPid, Monitor, OwnedEnv, Resource, ResourceArc, Term};

use crate::hot::{hot_nif, Call, Early};
use crate::monitors;
use crate::resource::KeptHandle;
use crate::terms::Failure;

hot_nif!("word_wait" / 4 = wait);
hot_nif!("word_cancel" / 1 = cancel);
hot_nif!("word_notify" / 2 = wake);

/// A process that waits. The registry keeps it, until the process is told, dies, or does not wait any more.
pub struct WordWaiter {
    ticket: OnceLock<Ticket>,
}

#[rustler::resource_impl(name = "emmap_word_waiter")]
impl Resource for WordWaiter {
    const IMPLEMENTS_DOWN: bool = true;

    fn down<'a>(&'a self, _env: Env<'a>, _pid: LocalPid, _monitor: Monitor) {
        self.cancel();
    }
}

/// Keeps the type for the life of the VM: see `resource::keep_types`.
pub fn keep_type() {
    std::mem::forget(ResourceArc::new(WordWaiter {
        ticket: OnceLock::new(),
    }));
}

impl WordWaiter {
    fn cancel(&self) -> bool {
        self.ticket
            .get()
            .is_some_and(|ticket| WAITS.cancel(*ticket))
    }
}

/// Sends `{tag, {:ok, value}}` or `{tag, {:error, reason}}`.
fn tell(pid: LocalPid, tag: Term) -> impl FnOnce(emmap_core::Result<i64>) + Send {
    let mut env = OwnedEnv::new();
    let tag = env.save(tag);
    move |result| {
        // A process that has ended needs no message.
        let _ = env.send_and_clear(&pid, |env| {
            let tag = tag.load(env);
            match result {
                Ok(value) => (tag, (rustler::types::atom::ok(), value)).encode(env),
                Err(Errno::CLOSED) => (tag, Failure::Closed).encode(env),
                Err(error) => (tag, Failure::Posix(error)).encode(env),
            }
        });
    }
}

// word_wait(handle, position, expected, tag) -> the value that differs already | {:ok, waiter}: later, the message
// {tag, {:ok, value}} or {tag, {:error, reason}}.
fn wait(call: &Call) -> Result<ErlNifTerm, Early> {
    let handle = call.handle()?;
    handle.region()?;
    let (position, expected) = (call.position(1)?, call.signed_word(2)?);
    let kept = Arc::new(KeptHandle::of(handle));
    let closing = kept.clone();
    let owner = std::ptr::from_ref(handle) as usize;
    let is_open = move || !closing.is_closed();
    wait_for(call, kept, owner, is_open, (position, expected), 3)
}

/// Makes the calling process a waiter for a word. Argument `tag` is the tag of the message.
pub fn wait_for(
    call: &Call,
    keeper: Arc<dyn Keeper>,
    owner: usize,
    is_open: impl FnOnce() -> bool,
    word: (u64, i64),
    tag: usize,
) -> Result<ErlNifTerm, Early> {
    call.with_env(|env| {
        let pid = env.pid();
        let waiter = ResourceArc::new(WordWaiter {
            ticket: OnceLock::new(),
        });
        // SAFETY: an argument of this call.
        let tag = unsafe { Term::new(env, call.argument(tag)) };
        let tell = tell(pid, tag);
        let keeps = waiter.clone();
        let told: Told = Box::new(move |result| {
            tell(result);
            drop(keeps);
        });
        monitors::listen();
        match WAITS.wait(keeper, word, owner, is_open, told)? {
            Waited::Changed(value) => Ok(call.sint64(value)),
            Waited::Waits(ticket) => {
                let _ = waiter.ticket.set(ticket);
                // `None`: the process is being killed.
                if waiter.monitor(Some(env), &pid).is_none() {
                    waiter.cancel();
                }
                let waiter = waiter.encode(env).as_c_arg();
                Ok(call.ok_with(waiter))
            }
        }
    })
}

// word_cancel(waiter) -> whether no message was or will be sent.
fn cancel(call: &Call) -> Result<ErlNifTerm, Early> {
    call.with_terms(|env, terms| {
        let waiter: ResourceArc<WordWaiter> = terms[0].decode()?;
        Ok(waiter.cancel().encode(env))
    })
}

// word_notify(handle, position) -> :ok
fn wake(call: &Call) -> Result<ErlNifTerm, Early> {
    let region: &Region = call.handle()?.region()?;
    notify(region, call.position(1)?)?;
    Ok(call.ok())
}
