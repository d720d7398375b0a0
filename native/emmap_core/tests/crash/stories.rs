//! Many stories from seeds, until there were enough images.

use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::environment::{crash_images, number};

/// In the default run; all tests are run with `EMMAP_CRASH_IMAGES=100000`.
const IMAGES: u64 = 20_000;

/// A small generator of our own: the same numbers from the same seed, everywhere.
pub struct Random(u64);

impl Random {
    pub fn of(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }
}

/// What was seen of the images.
pub struct Run {
    seed: u64,
    images: u64,
    broken: Vec<String>,
}

impl Run {
    fn of(seed: u64) -> Run {
        Run {
            seed,
            images: 0,
            broken: Vec::new(),
        }
    }

    /// Counts an image, and keeps that it is not `sound`.
    pub fn check(&mut self, sound: bool, what: &str) {
        self.images += 1;
        if !sound {
            self.broken.push(format!("{what} (seed {})", self.seed));
        }
    }
}

/// What is done to a file, from a seed, with the number of a sync that is left out.
pub type Story = fn(u64, Option<usize>, &mut Run);

/// All images of many stories are sound.
pub fn all_are_sound(story: Story) {
    let first = number("EMMAP_SEED").unwrap_or(u64::from(std::process::id()) * 1000);
    let enough = crash_images(IMAGES);
    let mut run = Run::of(first);
    while run.images < enough && run.broken.is_empty() {
        story(run.seed, None, &mut run);
        run.seed += 1;
    }
    let broken = run.broken.first();
    assert!(broken.is_none(), "EMMAP_SEED={}: {broken:?}", run.seed - 1);
    println!("{} images", run.images);
}

/// Whether leaving out a sync is noticed by the check `what`.
pub fn is_broken_without(story: Story, skipped: usize, what: &str) -> bool {
    (1..50).any(|seed| {
        let mut run = Run::of(seed);
        // The start of the next step may be broken here, which is the point.
        let _ = catch_unwind(AssertUnwindSafe(|| story(seed, Some(skipped), &mut run)));
        run.broken.iter().any(|why| why.starts_with(what))
    })
}
