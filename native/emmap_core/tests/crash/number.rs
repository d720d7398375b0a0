//! The smallest structure on the store: one number with a checksum, and what a next structure has
//! to write. A put goes to the slot after the one that has the number, and a file gets more slots
//! while it is mapped.

use std::convert::Infallible;

use emmap_core::store::header::{self, u32_at, u64_at, END};
use emmap_core::store::{self, BadFormat, Body, Error, InForce, Medium, Structure};
use emmap_core::Result;

use crate::medium::{Image, Simulated};
use crate::stories::{all_are_sound, is_broken_without, Random, Run};

/// A slot: sequence number, value, checksum of both, 0.
const SLOT: u64 = 24;

/// How many slots there are, at least two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slots(u64);

#[derive(Clone, Copy, Debug)]
pub struct Number {
    slots: Slots,
    in_force: InForce,
}

impl Body for Slots {
    const MAGIC: [u8; 8] = *b"EMMAPNUM";
    const VERSION: u32 = 1;
    const BYTES: usize = 8;

    fn encode(&self, body: &mut [u8]) {
        header::put(body, 0, self.0);
    }

    fn decode(body: &[u8]) -> Option<Slots> {
        Some(Slots(u64_at(body, 0))).filter(|slots| slots.0 >= 2)
    }

    fn file_size(&self) -> Option<u64> {
        END.checked_add(self.0.checked_mul(SLOT)?)
    }
}

impl Structure for Number {
    type Request = u64;
    type Mismatch = Infallible;
    type Body = Slots;
    const GROWS_MAPPED: bool = true;

    fn new(request: &u64) -> std::result::Result<Number, Error> {
        let in_force = InForce::NONE;
        let slots = Slots((*request).max(2));
        Ok(Number { slots, in_force })
    }

    fn read(medium: &impl Medium) -> std::result::Result<Number, Error> {
        let (slots, in_force) = header::read(medium)?;
        let number = Number { slots, in_force };
        number.latest(medium)?.ok_or(BadFormat::Content)?;
        Ok(number)
    }

    fn wanted(&self, request: &u64) -> std::result::Result<Option<Number>, Error> {
        let slots = Slots(*request);
        Ok((slots.0 > self.slots.0).then_some(Number { slots, ..*self }))
    }

    fn file_size(&self) -> Option<u64> {
        self.slots.file_size()
    }

    fn fill(&self, medium: &mut impl Medium) -> Result<()> {
        medium.write_at(END, &slot(1, 0))
    }

    fn body(&self) -> Result<Slots> {
        Ok(self.slots)
    }

    fn in_force(&self) -> InForce {
        self.in_force
    }
}

fn slot(sequence: u64, value: u64) -> [u8; SLOT as usize] {
    let mut slot = [0; SLOT as usize];
    header::put(&mut slot, 0, sequence);
    header::put(&mut slot, 8, value);
    let crc = crc32fast::hash(&slot[..16]);
    header::put(&mut slot, 16, u64::from(crc));
    slot
}

impl Number {
    /// The number in the sound slot with the highest sequence number: `(sequence, place, value)`.
    fn latest(&self, medium: &impl Medium) -> Result<Option<(u64, u64, u64)>> {
        let mut latest = None;
        for place in 0..self.slots.0 {
            let mut slot = [0; SLOT as usize];
            medium.read_at(END + place * SLOT, &mut slot)?;
            if crc32fast::hash(&slot[..16]) == u32_at(&slot, 16) {
                latest = latest.max(Some((u64_at(&slot, 0), place, u64_at(&slot, 8))));
            }
        }
        Ok(latest)
    }

    pub fn get(&self, medium: &impl Medium) -> Result<Option<u64>> {
        Ok(self.latest(medium)?.map(|(_, _, value)| value))
    }

    pub fn put(&self, medium: &mut impl Medium, value: u64) -> Result<()> {
        let (sequence, place, _) = self.latest(medium)?.unwrap_or_default();
        let place = (place + 1) % self.slots.0;
        medium.write_at(END + place * SLOT, &slot(sequence + 1, value))
    }
}

/// The number in what a crash left, and in how many slots.
fn found(image: &Image) -> Option<(u64, u64)> {
    let medium = Simulated::on(image.clone(), None);
    let number = Number::read(&medium).ok()?;
    Some((number.slots.0, number.get(&medium).ok()??))
}

/// Creates a number, then puts and grows it under its map, each time from an image that a crash left.
fn story(seed: u64, skipped: Option<usize>, run: &mut Run) {
    let mut random = Random::of(seed);
    let number = Number::new(&(2 + random.below(3))).unwrap();
    let mut medium = Simulated::on(Image::default(), skipped);
    store::create::write(&number, &mut medium).unwrap();
    for moment in medium.moments() {
        moment.images(&mut random, &mut |image| {
            let sound = !image.named || found(image) == Some((number.slots.0, 0));
            run.check(sound, "created");
        });
    }
    let mut start = medium.seen().clone();
    for _ in 0..3 {
        let mut medium = Simulated::on(start.clone(), skipped);
        let before = Number::read(&medium).expect("the start is sound");
        let old = before.get(&medium).unwrap().unwrap();
        let after = before.wanted(&(before.slots.0 + 1 + random.below(9)));
        let after = after.unwrap().expect("more slots");
        let (first, second) = (old + 1, old + 2 + random.below(1 << 40));
        // The first put may still be on its way to the disk when the file grows under the map.
        before.put(&mut medium.map(), first).unwrap();
        store::grow::write(&before, &after, &mut medium).unwrap();
        let mut left = medium.moments();
        for moment in &left {
            moment.images(&mut random, &mut |image| {
                let sound = found(image).is_some_and(|(slots, value)| {
                    [before.slots, after.slots].contains(&Slots(slots))
                        && [old, first].contains(&value)
                });
                run.check(sound, "grown");
            });
        }
        after.put(&mut medium.map(), second).unwrap();
        for moment in medium.moments() {
            moment.images(&mut random, &mut |image| {
                let values = [first, second].map(|value| Some((after.slots.0, value)));
                run.check(values.contains(&found(image)), "put");
            });
            left.push(moment);
        }
        medium.old_map().sync().unwrap();
        medium.now().images(&mut random, &mut |image| {
            run.check(found(image) == Some((after.slots.0, second)), "returned");
        });
        let moment = &left[random.below(left.len() as u64) as usize];
        moment.images(&mut random, &mut |image| start = image.clone());
    }
}

#[test]
fn a_crash_leaves_the_old_number_or_the_new() {
    all_are_sound(story);
}

#[test]
fn each_sync_is_needed() {
    let broken = |skipped, what| is_broken_without(story, skipped, what);
    assert!(broken(0, "created"), "the sync before the name");
    assert!(broken(0, "grown"), "the sync before the first header");
    assert!(broken(1, "grown"), "the sync between the headers");
    assert!(broken(3, "returned"), "the sync of the map");
}
