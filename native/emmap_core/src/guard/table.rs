//! All guarded ranges, ordered by address, so that the handler finds one by search.
//!
//! The table is a skip list. Only one thread changes it at a time. Searches take no lock and do not wait:
//!
//! - Nodes are never freed, and a removed node keeps its links until it is used again. So a search that is at a removed node
//!   gets back into the list, to every range that existed when the search began.
//! - A node that is used again may mislead a search. The search then finds nothing, and the number of [`Table::uses`]
//!   has changed, so it starts again. The result of a search is always right, because a slot is read consistently.

use std::ptr;

use super::slot::{Guarded, Slot};
use crate::sync::atomic::{fence, AtomicPtr, AtomicUsize, Ordering};

/// A node reaches each further level with a probability of one in four. Six links and the key fit into one cache line, and are
/// best for some thousand nodes.
const LEVELS: usize = if cfg!(loom) { 2 } else { 7 };

/// The next node on each level.
type Links = [AtomicPtr<Node>; LEVELS];

// A search reads only one cache line of each node.
#[repr(C, align(64))]
pub struct Node {
    /// The beginning of the range, from its insertion until the node is used again.
    key: AtomicUsize,
    next: Links,
    pub slot: Slot,
    /// For a free node: the next free node. Used only while the table is changed.
    free: AtomicPtr<Node>,
}

pub struct Table {
    first: Links,
    /// How often a node was filled.
    uses: AtomicUsize,
}

/// What is needed to change the table, by one thread at a time.
pub struct Changes {
    free: *mut Node,
    random: u64,
}

// SAFETY: nodes are never freed, and all in them is atomic.
unsafe impl Send for Changes {}

#[cfg(not(loom))]
macro_rules! no_links {
    () => {
        [const { AtomicPtr::new(ptr::null_mut()) }; LEVELS]
    };
}

// Loom's atomics are made at run time.
#[cfg(loom)]
macro_rules! no_links {
    () => {
        std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut()))
    };
}

macro_rules! empty_table {
    () => {
        Table {
            first: no_links!(),
            uses: AtomicUsize::new(0),
        }
    };
}

impl Node {
    fn new() -> Node {
        Node {
            key: AtomicUsize::new(0),
            next: no_links!(),
            slot: Slot::free(),
            free: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl Changes {
    pub const fn new() -> Changes {
        Changes {
            free: ptr::null_mut(),
            random: 0x9E37_79B9_7F4A_7C15,
        }
    }

    /// A node that no search needs.
    fn take_node(&mut self) -> &'static Node {
        // SAFETY: null, or a node made below, which is never freed.
        match unsafe { self.free.as_ref() } {
            Some(node) => {
                self.free = node.free.load(Ordering::Relaxed);
                node
            }
            None => Box::leak(Box::new(Node::new())),
        }
    }

    /// The number of levels of the next node.
    fn height(&mut self) -> usize {
        // Marsaglia's xorshift.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (1 + self.random.trailing_zeros() as usize / 2).min(LEVELS)
    }
}

impl Table {
    #[cfg(not(loom))]
    pub const fn new() -> Table {
        empty_table!()
    }

    #[cfg(loom)]
    pub fn new() -> Table {
        empty_table!()
    }

    /// The slot of the range that contains `address`, and its contents. It may be called by a signal handler. A thread that
    /// holds the range always finds it.
    pub fn find(&self, address: usize) -> Option<(&'static Slot, Guarded)> {
        loop {
            // Whoever reads this number finds every node as it was when the number was stored, or later.
            let uses = self.uses.load(Ordering::Acquire);
            let found = self
                .last_up_to(address)
                .and_then(|node| Some((&node.slot, node.slot.read(address)?)));
            if found.is_some() {
                return found;
            }
            // Pairs with the fence of `insert`: a search that was misled by a node that is used again reads another number.
            fence(Ordering::Acquire);
            if self.uses.load(Ordering::Relaxed) == uses {
                return None;
            }
        }
    }

    /// The node with the highest key up to `address`.
    fn last_up_to(&self, address: usize) -> Option<&'static Node> {
        let mut last = None;
        let mut links = &self.first;
        for level in (0..LEVELS).rev() {
            while let Some(node) = next(links, level) {
                if node.key.load(Ordering::Relaxed) > address {
                    break;
                }
                last = Some(node);
                links = &node.next;
            }
        }
        last
    }

    /// Adds a range, which overlaps no other one.
    pub fn insert(&self, changes: &mut Changes, guarded: &Guarded) -> &'static Node {
        let height = changes.height();
        self.insert_on(height, changes, guarded)
    }

    /// As [`Table::insert`], on the lowest `height` levels.
    pub fn insert_on(
        &self,
        height: usize,
        changes: &mut Changes,
        guarded: &Guarded,
    ) -> &'static Node {
        let node = changes.take_node();
        let uses = self.uses.load(Ordering::Relaxed);
        self.uses.store(uses.wrapping_add(1), Ordering::Release);
        fence(Ordering::Release);
        node.key.store(guarded.start, Ordering::Relaxed);
        node.slot.fill(guarded);
        let before = self.links_before(guarded.start);
        for (level, link) in node.next.iter().enumerate() {
            let next = match level < height {
                true => before[level][level].load(Ordering::Relaxed),
                false => ptr::null_mut(),
            };
            link.store(next, Ordering::Relaxed);
        }
        for (level, links) in before.iter().enumerate().take(height) {
            links[level].store(ptr::from_ref(node).cast_mut(), Ordering::Release);
        }
        node
    }

    /// Removes a range, which is not held any more.
    pub fn remove(&self, changes: &mut Changes, node: &'static Node) {
        let before = self.links_before(node.key.load(Ordering::Relaxed));
        let this = ptr::from_ref(node).cast_mut();
        for (level, links) in before.iter().enumerate().rev() {
            if links[level].load(Ordering::Relaxed) == this {
                let next = node.next[level].load(Ordering::Relaxed);
                links[level].store(next, Ordering::Release);
            }
        }
        node.slot.empty();
        node.free.store(changes.free, Ordering::Relaxed);
        changes.free = this;
    }

    /// For each level the links of the last node before `key`.
    fn links_before(&self, key: usize) -> [&Links; LEVELS] {
        let mut before = [&self.first; LEVELS];
        let mut links = &self.first;
        for level in (0..LEVELS).rev() {
            while let Some(node) = next(links, level) {
                if node.key.load(Ordering::Relaxed) >= key {
                    break;
                }
                links = &node.next;
            }
            before[level] = links;
        }
        before
    }
}

fn next(links: &Links, level: usize) -> Option<&'static Node> {
    // SAFETY: null, or a node that was filled before it was linked, and is never freed.
    unsafe { links[level].load(Ordering::Acquire).as_ref() }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::AtomicBool;

    use super::super::slot::ANONYMOUS;
    use super::*;

    const LEN: usize = 0x1000;

    fn range(start: usize) -> Guarded {
        Guarded {
            start,
            limit: start + LEN,
            end: start + LEN,
            fd: ANONYMOUS,
            file_offset: 0,
            delta: 0,
            page: LEN,
            writable: false,
            only_copy: false,
            fault: ptr::null(),
        }
    }

    /// Numbers from 0 up to `below`, without an order.
    fn random(state: &mut u64, below: usize) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005) + 1;
        (*state >> 33) as usize % below
    }

    /// Every other page is a gap.
    fn start_of(n: usize) -> usize {
        (2 * n + 1) * LEN
    }

    #[test]
    fn finds_what_was_inserted_and_nothing_else() {
        const RANGES: usize = 2000;
        let (table, mut changes) = (Table::new(), Changes::new());
        let (mut nodes, mut state) = (BTreeMap::new(), 1);
        for _ in 0..20_000 {
            let n = random(&mut state, RANGES);
            match nodes.remove(&n) {
                Some(node) => table.remove(&mut changes, node),
                None => {
                    nodes.insert(n, table.insert(&mut changes, &range(start_of(n))));
                }
            }
            let n = random(&mut state, RANGES);
            let there = nodes.contains_key(&n).then(|| range(start_of(n)));
            let find = |address| table.find(address).map(|(_, guarded)| guarded);
            assert_eq!(find(start_of(n)), there);
            assert_eq!(find(start_of(n) + LEN - 1), there);
            assert_eq!(find(start_of(n) - 1), None);
            assert_eq!(find(start_of(n) + LEN), None);
        }
        assert_eq!(table.find(0).map(|(_, guarded)| guarded), None);
    }

    #[test]
    fn nodes_are_used_again() {
        let (table, mut changes) = (Table::new(), Changes::new());
        let first = table.insert(&mut changes, &range(LEN));
        table.remove(&mut changes, first);
        for n in 0..1000 {
            let node = table.insert(&mut changes, &range(start_of(n)));
            assert!(ptr::eq(node, first));
            table.remove(&mut changes, node);
        }
    }

    #[test]
    fn a_holder_finds_its_range_while_others_come_and_go() {
        const RANGES: usize = 64;
        static TABLE: Table = Table::new();
        static DONE: AtomicBool = AtomicBool::new(false);
        let mut changes = Changes::new();
        // Of every two ranges, one stays.
        for n in 0..RANGES {
            TABLE.insert(&mut changes, &range(start_of(2 * n)));
        }
        let holders: Vec<_> = (0..3)
            .map(|n| {
                std::thread::spawn(move || {
                    let (mut state, mut searches) = (n, 0);
                    while !DONE.load(Ordering::Relaxed) || searches < 1000 {
                        let start = start_of(2 * random(&mut state, RANGES));
                        let found = TABLE.find(start + 1).map(|(_, guarded)| guarded);
                        assert_eq!(found, Some(range(start)));
                        searches += 1;
                    }
                })
            })
            .collect();
        let (mut nodes, mut state) = (BTreeMap::new(), 7);
        for _ in 0..200_000 {
            let n = 2 * random(&mut state, RANGES) + 1;
            match nodes.remove(&n) {
                Some(node) => TABLE.remove(&mut changes, node),
                None => {
                    nodes.insert(n, TABLE.insert(&mut changes, &range(start_of(n))));
                }
            }
        }
        DONE.store(true, Ordering::Relaxed);
        for holder in holders {
            holder.join().unwrap();
        }
    }
}
