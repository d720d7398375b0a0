//! Memory for a large copy. It is ours rather than the VM's, so that giving it back takes nobody's
//! time: unmapping a gigabyte takes tens of milliseconds, and the VM would do it on a scheduler.

use memmap2::MmapMut;

use crate::{os, Errno, Result};

pub struct Buffer {
    map: MmapMut,
}

impl Buffer {
    pub fn new(len: usize) -> Result<Buffer> {
        let map = MmapMut::map_anon(len).map_err(|_| Errno::NOMEM)?;
        // Fewer page faults where the kernel has huge pages to give; a hint that may fail.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Buffer { map })
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the range is `map`'s, which nobody reads any more.
        unsafe { os::release_pages(self.map.as_mut_ptr(), self.map.len()) };
    }
}
