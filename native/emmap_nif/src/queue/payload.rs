//! How payloads are returned: copied, or with `direct: true` live.

use emmap_core::queue::record::{self, Head};
use emmap_core::queue::{Found, Pin, Room, Taken};
use rustler::sys::ErlNifTerm;

use super::{OpenQueue, Part};
use crate::hot::{Call, Early};
use crate::resource::KeptRegion;
use crate::terms::Failure;

/// Where the payload of one item goes, and then the term that it is.
pub trait Payload<'a>: Sized {
    fn new(call: &'a Call, part: &'a Part) -> Self;

    /// To be called with the item while the lock under which it was found is held.
    fn hold(&mut self, found: &Found);

    /// The room for the payload of the item that is held.
    fn room(&mut self, head: &Head) -> Room;

    /// The payload, bare; of a term a tuple of it.
    fn item(&mut self, taken: &Taken) -> ErlNifTerm;

    #[inline(always)]
    fn held_room(&mut self, found: &Found) -> Room {
        self.hold(found);
        self.room(&found.head)
    }
}

/// A binary for a payload, made where its length is known.
pub struct Copied<'a> {
    call: &'a Call,
    term: ErlNifTerm,
}

impl<'a> Payload<'a> for Copied<'a> {
    #[inline(always)]
    fn new(call: &'a Call, _part: &'a Part) -> Copied<'a> {
        Copied {
            call,
            term: call.ok(),
        }
    }

    #[inline(always)]
    fn hold(&mut self, _found: &Found) {}

    #[inline(always)]
    fn room(&mut self, head: &Head) -> Room {
        let (at, term) = self.call.new_binary(head.length as usize);
        self.term = term;
        Room::Copy(at)
    }

    #[inline(always)]
    fn item(&mut self, taken: &Taken) -> ErlNifTerm {
        self.call.consumed(taken.length as usize);
        match taken.flags & record::TERM {
            0 => self.term,
            _ => self.call.tuple(&[self.term]),
        }
    }
}

/// The longest payload that is copied all the same: the VM keeps a binary of so many bytes on the heap of the process.
const COPIED: u64 = 64;

/// A live binary: of an item of a raw queue that is longer than [`COPIED`].
pub struct Live<'a> {
    part: &'a Part,
    copied: Copied<'a>,
    shown: Option<Shown>,
}

/// A payload that is pinned.
struct Shown {
    pin: Pin<KeptRegion>,
    /// Where the payload is in the file.
    at: u64,
    length: u64,
}

impl<'a> Payload<'a> for Live<'a> {
    fn new(call: &'a Call, part: &'a Part) -> Live<'a> {
        Live {
            part,
            copied: Copied::new(call, part),
            shown: None,
        }
    }

    fn hold(&mut self, found: &Found) {
        let head = &found.head;
        let live = head.length > COPIED && head.flags & (record::TERM | record::DEAD_LETTER) == 0;
        // Before it: what was held until now is released under the lock, too.
        self.shown = None;
        if live {
            let (at, length) = head.payload(found.at);
            let pin = self.part.queue.pin(self.part.region.clone(), found);
            // What cannot be pinned is copied.
            self.shown = pin.ok().map(|pin| Shown { pin, at, length });
        }
    }

    fn room(&mut self, head: &Head) -> Room {
        match self.shown {
            Some(_) => Room::InPlace,
            None => self.copied.room(head),
        }
    }

    fn item(&mut self, taken: &Taken) -> ErlNifTerm {
        match self.shown.take() {
            // SAFETY: the item was found in the map, which is as long for as long as the pin keeps it.
            Some(shown) => unsafe {
                let (at, length) = (shown.at as usize, shown.length as usize);
                // Its checksum was taken.
                self.copied.call.consumed(length);
                self.copied.call.pinned_binary(shown.pin, at, length)
            },
            None => self.copied.item(taken),
        }
    }
}

/// To be called before a live payload is made.
pub fn lend(call: &Call, queue: &OpenQueue) -> Result<(), Early> {
    match call.handle()?.lend(&queue.part.region) {
        true => Ok(()),
        false => Err(Failure::Closed.into()),
    }
}
