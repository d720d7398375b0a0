//! Memory for a large copy. It is not allocated by the VM, so that freeing it delays
//! nothing: unmapping a gigabyte takes tens of milliseconds, and the VM would do it on a scheduler.

use memmap2::MmapMut;

use crate::{os, Errno, Result};

pub struct Buffer {
    /// With an additional page at both ends, for the same reason as a reservation (`region/reservation.rs`).
    map: MmapMut,
    len: usize,
}

impl Buffer {
    pub fn new(len: usize) -> Result<Buffer> {
        let whole = len.checked_add(2 * os::page_size()).ok_or(Errno::NOMEM)?;
        let map = MmapMut::map_anon(whole).map_err(|_| Errno::NOMEM)?;
        // Fewer page faults if the kernel has huge pages available. This is a hint that may fail.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Buffer { map, len })
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        // SAFETY: the map is two pages longer than the buffer.
        unsafe { self.map.as_mut_ptr().add(os::page_size()) }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // In pieces, because no thread gets a new page while another thread waits to change maps.
        const PIECE: usize = 8 << 20;
        for at in (0..self.map.len()).step_by(PIECE) {
            let count = PIECE.min(self.map.len() - at);
            // SAFETY: the range is part of `map`, which is not read any more.
            unsafe { os::release_pages(self.map.as_mut_ptr().add(at), count) };
        }
    }
}
