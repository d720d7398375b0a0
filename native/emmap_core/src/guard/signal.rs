//! SIGBUS, taken once and passed on when it is not for us.

use std::mem::MaybeUninit;
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use super::patch::patch;
use crate::{os, Errno};

/// Whether the guard is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// Another library took the signal after us.
    Lost,
    /// It was switched off before the library was loaded.
    Off,
}

const NOT_INSTALLED: u8 = 0;
const INSTALLED: u8 = 1;
static STATE: AtomicU8 = AtomicU8::new(NOT_INSTALLED);

/// The action that was there before ours. Written once, before the handler can run.
struct Previous(MaybeUninit<libc::sigaction>);
static mut PREVIOUS: Previous = Previous(MaybeUninit::uninit());

/// Takes SIGBUS, once, and keeps this library loaded for as long as the process lives.
pub fn install() -> crate::Result<()> {
    static INSTALLING: Mutex<()> = Mutex::new(());
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if STATE.load(Ordering::Acquire) == INSTALLED {
        return Ok(());
    }
    pin_library()?;
    // SAFETY: both actions are whole: zeroed, then filled. `PREVIOUS` is written here only, under
    // the lock, before `handle` is installed and can read it.
    unsafe {
        let mut previous: libc::sigaction = std::mem::zeroed();
        os::check(libc::sigaction(libc::SIGBUS, ptr::null(), &mut previous))?;
        (*ptr::addr_of_mut!(PREVIOUS)).0.write(previous);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigemptyset(&mut action.sa_mask);
        os::check(libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()))?;
    }
    STATE.store(INSTALLED, Ordering::Release);
    Ok(())
}

pub fn status() -> Status {
    if STATE.load(Ordering::Acquire) != INSTALLED {
        return Status::Off;
    }
    // SAFETY: `now` is zeroed, then filled by the call.
    let now = unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGBUS, ptr::null(), &mut now);
        now.sa_sigaction
    };
    if now == handle as *const () as usize {
        Status::Ok
    } else {
        Status::Lost
    }
}

/// A purge of the module must not unload the code that the kernel calls.
fn pin_library() -> crate::Result<()> {
    // SAFETY: `handle` is an address inside this library; dladdr fills `info` if it returns
    // non-zero, and the name in it lives as long as the library.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(handle as *const libc::c_void, &mut info) == 0 || info.dli_fname.is_null() {
            return Err(Errno::NOTSUP);
        }
        // No library of that name: we are linked into the program itself, which stays.
        libc::dlopen(
            info.dli_fname,
            libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE,
        );
    }
    Ok(())
}

/// The signal handler. It leaves `errno` as it was.
extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `info` to a handler with SA_SIGINFO; the errno location
    // of this thread is always valid.
    unsafe {
        let errno = errno_location();
        let saved = *errno;
        // Up to 0: sent by somebody (`kill -BUS`), and no fault of any page.
        let fault = (*info).si_code > 0;
        let lost = fault && !is_unaligned((*info).si_code);
        let patched = lost && patch((*info).si_addr() as usize, is_poison((*info).si_code));
        *errno = saved;
        if !patched {
            call_previous(signal, info, context, fault);
        }
    }
}

/// Whether the signal reports an address that must be aligned. The page is then not lost, and a zero page would not help.
/// macOS also uses this code for lost pages.
fn is_unaligned(code: libc::c_int) -> bool {
    const BUS_ADRALN: libc::c_int = 1;
    cfg!(target_os = "linux") && code == BUS_ADRALN
}

/// Whether the signal reports broken memory.
fn is_poison(code: libc::c_int) -> bool {
    #[cfg(target_os = "linux")]
    return code == BUS_MCEERR_AR || code == BUS_MCEERR_AO;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = code;
        false
    }
}

// The kernel's numbers, which libc does not have everywhere.
#[cfg(target_os = "linux")]
const BUS_MCEERR_AR: libc::c_int = 4;
#[cfg(target_os = "linux")]
const BUS_MCEERR_AO: libc::c_int = 5;

/// Not our page: do what would have been done without us.
///
/// # Safety
/// Only from the handler, with what the kernel passed to it.
unsafe fn call_previous(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    fault: bool,
) {
    // SAFETY: `PREVIOUS` was filled before the handler was installed and never since; a previous
    // handler is called with the arguments that its flags say it takes.
    unsafe {
        let previous = (*ptr::addr_of!(PREVIOUS)).0.assume_init_ref();
        match previous.sa_sigaction {
            libc::SIG_IGN if !fault => (),
            libc::SIG_DFL | libc::SIG_IGN => {
                // The instruction runs again and dies as it would have.
                let mut default: libc::sigaction = std::mem::zeroed();
                default.sa_sigaction = libc::SIG_DFL;
                libc::sigaction(signal, &default, ptr::null_mut());
                if !fault {
                    // No instruction will: send it again, to be taken when the handler returns.
                    libc::raise(signal);
                }
            }
            handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
                type Action = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
                std::mem::transmute::<usize, Action>(handler)(signal, info, context);
            }
            handler => std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler)(signal),
        }
    }
}

#[cfg(target_os = "linux")]
unsafe fn errno_location() -> *mut libc::c_int {
    // SAFETY: takes nothing, always valid.
    unsafe { libc::__errno_location() }
}

#[cfg(not(target_os = "linux"))]
unsafe fn errno_location() -> *mut libc::c_int {
    // SAFETY: takes nothing, always valid.
    unsafe { libc::__error() }
}
