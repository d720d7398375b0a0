//! Notifies other programs of the death of this one, however it dies, without polling.
//!
//! When a thread ends, the kernel walks its list of robust futexes: it sets a bit in those that the thread holds, and wakes a
//! waiter (get_robust_list(2)). A thread is started that holds one, and does nothing else. Its list has only the entry of a
//! pending operation, so that only the futex itself must be in the shared memory.

use std::sync::atomic::AtomicU32;

use crate::Result;

/// The bit that the kernel sets in the word of a thread that died (`FUTEX_OWNER_DIED`).
pub const DIED: u32 = 0x4000_0000;

/// A word that shows that this program lives, until this is dropped.
pub struct DeathNotice {
    #[cfg(target_os = "linux")]
    thread: linux::Thread,
}

impl DeathNotice {
    /// Stores a number other than 0 in the word. If the program dies, the kernel sets the bit [`DIED`], and wakes one waiter.
    ///
    /// # Safety
    /// The word must stay mapped until this is dropped.
    #[cfg(target_os = "linux")]
    pub unsafe fn new(word: &AtomicU32) -> Result<DeathNotice> {
        // SAFETY: the caller's promise.
        let thread = unsafe { linux::Thread::start(word)? };
        Ok(DeathNotice { thread })
    }

    /// Not supported here: the word stays 0, and others have to check from time to time.
    ///
    /// # Safety
    /// None here.
    #[cfg(not(target_os = "linux"))]
    pub unsafe fn new(_word: &AtomicU32) -> Result<DeathNotice> {
        Ok(DeathNotice {})
    }
}

#[cfg(target_os = "linux")]
impl Drop for DeathNotice {
    fn drop(&mut self) {
        self.thread.stop();
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ptr;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::mpsc::{channel, Sender};
    use std::thread::JoinHandle;

    use crate::{os, Errno, Result};

    /// `FUTEX_WAITERS`: the kernel always wakes a waiter.
    const WAITED_FOR: u32 = 0x8000_0000;

    /// `struct robust_list_head`. The list itself is empty: it leads to its head.
    #[repr(C)]
    struct Head {
        next: *const Head,
        offset: libc::c_long,
        pending: *const AtomicU32,
    }

    pub struct Thread {
        /// Dropped to end the thread.
        life: Option<Sender<()>>,
        thread: Option<JoinHandle<()>>,
    }

    struct Word(*const AtomicU32);

    // SAFETY: an atomic integer may be used by any thread, as long as it is mapped: see `Thread::start`.
    unsafe impl Send for Word {}

    impl Thread {
        /// # Safety
        /// The word must stay mapped until [`Thread::stop`] has returned.
        pub unsafe fn start(word: &AtomicU32) -> Result<Thread> {
            let word = Word(word);
            let (life, end) = channel::<()>();
            let (began, begins) = channel();
            let thread = std::thread::Builder::new()
                .name("emmap_life".into())
                .stack_size(64 << 10);
            let spawned = thread.spawn(move || {
                let word = word;
                let held = hold(&word);
                let _ = began.send(held.as_ref().err().copied());
                if let Ok(head) = held {
                    // Returns when the other end is dropped.
                    let _ = end.recv();
                    release(head, &word);
                }
            });
            let thread = spawned.map_err(|_| Errno(libc::EAGAIN))?;
            match begins.recv() {
                Ok(None) => Ok(Thread {
                    life: Some(life),
                    thread: Some(thread),
                }),
                Ok(Some(error)) => Err(error),
                Err(_) => Err(Errno::IO),
            }
        }

        pub fn stop(&mut self) {
            drop(self.life.take());
            if let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }

    /// Makes the word that of the calling thread.
    fn hold(word: &Word) -> Result<Box<Head>> {
        // SAFETY: takes no pointers.
        let thread = unsafe { libc::syscall(libc::SYS_gettid) } as u32;
        // SAFETY: mapped until the thread ends, by the promise of `Thread::start`.
        unsafe { &*word.0 }.store(thread | WAITED_FOR, Ordering::SeqCst);
        let mut head = Box::new(Head {
            next: ptr::null(),
            offset: 0,
            pending: word.0,
        });
        head.next = &*head;
        set_list(&*head, size_of::<Head>())?;
        Ok(head)
    }

    fn release(mut head: Box<Head>, word: &Word) {
        // No list any more: the kernel would change the word of whoever has it by then.
        head.pending = ptr::null();
        let _ = set_list(&*head, size_of::<Head>());
        // SAFETY: as in `hold`.
        let word = unsafe { &*word.0 };
        // SAFETY: takes no pointers.
        let mine = unsafe { libc::syscall(libc::SYS_gettid) } as u32 | WAITED_FOR;
        // Another notice of this program may have the word by now.
        let _ = word.compare_exchange(mine, 0, Ordering::SeqCst, Ordering::SeqCst);
        os::futex_wake(word);
        // Read by the kernel when the thread ends.
        Box::leak(head);
    }

    fn set_list(head: *const Head, len: usize) -> Result<()> {
        // SAFETY: the kernel reads the list when the thread ends: it is never freed once the thread has it.
        match unsafe { libc::syscall(libc::SYS_set_robust_list, head, len) } {
            0 => Ok(()),
            _ => Err(Errno::last()),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_notice_that_ends_orderly() {
        let word = AtomicU32::new(0);
        // SAFETY: the word outlives the notice.
        let notice = unsafe { DeathNotice::new(&word) }.unwrap();
        let held = word.load(Ordering::SeqCst);
        assert!(held != 0 && held & DIED == 0);
        drop(notice);
        assert_eq!(word.load(Ordering::SeqCst), 0);
    }
}
