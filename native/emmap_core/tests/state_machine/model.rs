//! The expected state of a map and its file, and the expected result of every operation.
//!
//! The file is its bytes. A page of the map shows them, or bytes of its own: bytes written through a
//! private map (which the kernel discards with the page when the file is truncated), or zeros in
//! place of a lost page.

use emmap_core::Errno;

pub const PAGE: usize = 4096;

#[derive(Clone, Debug)]
pub struct Shape {
    pub write: bool,
    pub private: bool,
    pub fixed_size: bool,
    pub offset: usize,
    pub length: Option<usize>,
    pub sparse: bool,
    pub lock: bool,
}

#[derive(Clone, Debug)]
enum Page {
    File,
    Written(Vec<u8>),
    Lost(Vec<u8>),
}

pub struct Model {
    shape: Shape,
    pub file: Vec<u8>,
    pub len: usize,
    pages: Vec<Page>,
    pub faulted: bool,
    /// Pages to be mapped again.
    lost: Option<(usize, usize)>,
    resizable: bool,
    grows: bool,
    follows: bool,
}

type Answer<T = ()> = Result<T, Errno>;

impl Model {
    pub fn open(shape: &Shape, mut file: Vec<u8>) -> Model {
        let wanted = shape.length.map_or(0, |length| shape.offset + length);
        if shape.write && !shape.private && wanted > file.len() {
            file.resize(wanted, 0);
        }
        let available = file.len().saturating_sub(shape.offset);
        let len = shape.length.unwrap_or(available).min(available);
        let whole = shape.offset == 0;
        let resizable =
            shape.write && !shape.private && !shape.fixed_size && whole && len == available;
        let mut model = Model {
            len: 0,
            pages: Vec::new(),
            faulted: false,
            lost: None,
            resizable,
            grows: resizable && shape.length.is_none(),
            follows: whole && shape.length.is_none() && !shape.fixed_size,
            shape: shape.clone(),
            file,
        };
        model.set_len(len);
        model
    }

    fn delta(&self) -> usize {
        self.shape.offset % PAGE
    }

    fn set_len(&mut self, len: usize) {
        let pages = match len {
            0 => 0,
            len => (self.delta() + len).div_ceil(PAGE),
        };
        self.len = len;
        self.pages.resize(pages, Page::File);
    }

    fn check(&self) -> Answer {
        match self.faulted {
            true => Err(Errno::STALE),
            false => Ok(()),
        }
    }

    /// A check of the file's size detects what no page shows.
    fn check_size(&mut self) -> Answer {
        if self.len > 0 && self.file.len() < self.shape.offset + self.len {
            self.faulted = true;
        }
        self.check()
    }

    /// The first page of the map that the file does not reach.
    fn covered(&self) -> usize {
        let start = self.shape.offset - self.delta();
        self.file.len().saturating_sub(start).div_ceil(PAGE)
    }

    fn touch(&mut self, from: usize, count: usize) {
        if count == 0 {
            return;
        }
        let covered = self.covered();
        let (first, last) = (
            (self.delta() + from) / PAGE,
            (self.delta() + from + count - 1) / PAGE,
        );
        let missing = |page: &usize| matches!(self.pages.get(*page), Some(Page::File));
        if !(first.max(covered)..=last).any(|page| missing(&page)) {
            return;
        }
        self.faulted = true;
        let end = self.pages.len();
        self.pages[covered..].fill(Page::Lost(vec![0; PAGE]));
        let (from, to) = self.lost.unwrap_or((covered, end));
        self.lost = Some((from.min(covered), to.max(end)));
    }

    fn byte(&self, at: usize) -> u8 {
        let place = self.delta() + at;
        match self.pages.get(place / PAGE) {
            None => 0,
            Some(Page::File) => {
                let at = self.shape.offset + at;
                self.file.get(at).copied().unwrap_or(0)
            }
            Some(Page::Written(bytes) | Page::Lost(bytes)) => bytes[place % PAGE],
        }
    }

    /// What a live view of `count` bytes at `at` shows, inside the map or not.
    pub fn view(&mut self, at: usize, count: usize) -> Vec<u8> {
        self.touch(at, count);
        (at..at + count).map(|at| self.byte(at)).collect()
    }

    pub fn read(&mut self, at: usize, count: usize) -> Answer<Vec<u8>> {
        let count = count.min(self.len.saturating_sub(at));
        let bytes = self.view(at, count);
        self.check().map(|()| bytes)
    }

    /// Whether a write there would go behind the end of the file in its last page: where nobody
    /// promises what becomes of it.
    pub fn is_unpredictable(&self, at: usize, count: usize) -> bool {
        let (from, to) = (self.shape.offset + at, self.shape.offset + at + count);
        let end = self.file.len();
        !self.shape.private
            && from < end.next_multiple_of(PAGE)
            && to > end
            && at + count <= self.len
    }

    pub fn write(&mut self, at: usize, data: &[u8]) -> Answer {
        if !self.shape.write {
            return Err(Errno::ACCES);
        }
        // An operation that returns a fault does nothing.
        self.check()?;
        if data.is_empty() {
            return Ok(());
        }
        let end = at + data.len();
        if end > self.len {
            self.grow(end)?;
        }
        self.touch(at, data.len());
        for (at, byte) in (at..).zip(data) {
            let place = self.delta() + at;
            let page = place / PAGE;
            if self.shape.private && matches!(self.pages[page], Page::File) {
                // Its first byte may lie before the map, where nobody looks.
                let first = (page * PAGE) as isize - self.delta() as isize;
                let shown = (first..first + PAGE as isize)
                    .map(|at| usize::try_from(at).map_or(0, |at| self.byte(at)));
                self.pages[page] = Page::Written(shown.collect());
            }
            match &mut self.pages[page] {
                Page::File => self.file[self.shape.offset + at] = *byte,
                Page::Written(bytes) | Page::Lost(bytes) => bytes[place % PAGE] = *byte,
            }
        }
        self.check()
    }

    fn grow(&mut self, to: usize) -> Answer {
        if !self.grows {
            return Err(Errno::NOSPC);
        }
        self.check()?;
        self.check_size()?;
        self.extend(to.max(self.file.len()));
        Ok(())
    }

    fn extend(&mut self, to: usize) {
        if to > self.file.len() {
            self.file.resize(to, 0);
        }
        self.set_len(to);
    }

    fn check_resizable(&self, to: usize) -> Answer {
        match to.cmp(&self.len) {
            _ if !self.shape.write => Err(Errno::ACCES),
            std::cmp::Ordering::Equal => Ok(()),
            _ if self.resizable => Ok(()),
            std::cmp::Ordering::Greater => Err(Errno::NOSPC),
            std::cmp::Ordering::Less => Err(Errno::INVAL),
        }
    }

    pub fn resize(&mut self, to: usize) -> Answer {
        self.change_size(to, false)
    }

    pub fn truncate(&mut self, to: usize) -> Answer {
        self.change_size(to, true)
    }

    fn change_size(&mut self, to: usize, cut: bool) -> Answer {
        self.check()?;
        self.check_resizable(to)?;
        self.check_size()?;
        if to < self.len || (cut && self.resizable) {
            self.file.resize(to, 0);
        }
        self.extend(to);
        Ok(())
    }

    /// A check of the file, which detects what raises no signal.
    pub fn describe(&mut self) {
        if !self.shape.private {
            let _ = self.check_size();
        }
    }

    pub fn double(&mut self) -> Answer<u64> {
        self.check()?;
        let to = self.len + self.len.max(1);
        self.check_resizable(to)?;
        self.check_size()?;
        let to = to.max(self.file.len());
        self.extend(to);
        Ok(to as u64)
    }

    pub fn allocate(&mut self, at: usize, count: usize) -> Answer {
        self.check()?;
        if !self.shape.write || self.shape.private {
            return Err(Errno::ACCES);
        }
        if count == 0 {
            return Err(Errno::INVAL);
        }
        self.check_size()?;
        match at + count > self.len {
            true => self.grow(at + count),
            false => Ok(()),
        }
    }

    pub fn sync(&mut self) -> Answer {
        self.check()?;
        match self.shape.write && !self.shape.private {
            true => self.check_size(),
            false => Ok(()),
        }
    }

    /// Whether the map got longer.
    pub fn reattach(&mut self) -> Answer<bool> {
        let (before, size) = (self.len, self.file.len());
        // What a private map was written is nowhere else: it gets no longer.
        let own = self.shape.private && self.shape.write;
        if self.follows && (size < before || !own) {
            self.set_len(size);
        }
        let longer = self.len > before;
        if self.faulted {
            if self.len > 0 && size < self.shape.offset + self.len {
                return Err(Errno::STALE);
            }
            let pages = self.pages.len();
            if let Some((from, to)) = self.lost.take() {
                self.pages[from.min(pages)..to.min(pages)].fill(Page::File);
            }
            self.faulted = false;
        }
        self.check_size().map(|()| longer)
    }

    // What another program does to the file.

    pub fn set_file_size(&mut self, to: usize) {
        self.file.resize(to, 0);
        let covered = self.covered().min(self.pages.len());
        for page in &mut self.pages[covered..] {
            if let Page::Written(_) = page {
                *page = Page::File;
            }
        }
    }

    pub fn overwrite(&mut self, at: usize, data: &[u8]) {
        let end = self.file.len().max(at + data.len());
        self.file.resize(end, 0);
        self.file[at..at + data.len()].copy_from_slice(data);
    }
}
