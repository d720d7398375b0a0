//! Counters: creation and growth.

use emmap_core::counters::Layout;
use emmap_core::store::{self, BadFormat, Structure};

use crate::medium::{Image, Simulated};
use crate::stories::{all_are_sound, is_broken_without, Random, Run};

fn names(random: &mut Random, count: u64, start: &[String]) -> Vec<String> {
    let mut names = start.to_vec();
    while (names.len() as u64) < count {
        let length = 1 + random.below(20) as usize;
        names.push(format!("{}{}", names.len(), "n".repeat(length)));
    }
    names
}

fn layout_of(image: &Image) -> Result<Layout, BadFormat> {
    match Layout::read(&Simulated::on(image.clone(), None)) {
        Ok(layout) => Ok(layout),
        Err(store::Error::BadFormat(why)) => Err(why),
        Err(other) => panic!("a medium that does not fail: {other:?}"),
    }
}

/// Where counter `n` is, in its first stripe.
fn word(layout: &Layout, n: u64) -> usize {
    let (line, place) = (n / 16, n % 16);
    (layout.data_offset + line * 128 * u64::from(layout.stripes) + place * 8) as usize
}

fn value(image: &Image, layout: &Layout, n: u64) -> u64 {
    let at = word(layout, n);
    u64::from_le_bytes(image.bytes[at..at + 8].try_into().unwrap())
}

/// Creates counters, then grows them a few times, each time from an image that a crash left.
fn story(seed: u64, skipped: Option<usize>, run: &mut Run) {
    let mut random = Random::of(seed);
    let named = random.below(2) == 0;
    let count = 1 + random.below(40);
    let first = match named {
        true => names(&mut random, count, &[]),
        false => Vec::new(),
    };
    let stripes = 1 + random.below(3) as u32;
    let room = if named { 8192 } else { 0 };
    let layout = Layout::with_room(count, stripes, &first, room);
    let mut medium = Simulated::on(Image::default(), skipped);
    store::create::write(&layout, &mut medium).unwrap();
    for moment in medium.moments() {
        moment.images(&mut random, &mut |image| {
            // Without its name nobody finds the file, which is the old state.
            let sound = !image.named
                || layout_of(image).is_ok_and(|found| {
                    (found.count, &found.names) == (count, &first)
                        && (0..count).all(|n| value(image, &found, n) == 0)
                });
            run.check(sound, "created");
        });
    }
    let mut start = medium.seen().clone();
    let mut asked = 0;
    for _ in 0..3 {
        let before = layout_of(&start).expect("the start is sound");
        for n in 0..before.count {
            let at = word(&before, n);
            start.bytes[at..at + 8].copy_from_slice(&(n + 7).to_le_bytes());
        }
        // Often as many as the growth that a crash interrupted, and with other names: what it left of
        // its header would fit the next one.
        let more = match asked > before.count && random.below(4) > 0 {
            true => asked,
            false => before.count + 1 + random.below(30),
        };
        asked = more;
        let names = match named {
            true => names(&mut random, more, &before.names),
            false => Vec::new(),
        };
        let after = before.grown(more, &names).unwrap();
        let mut medium = Simulated::on(start.clone(), skipped);
        store::grow::write(&before, &after, &mut medium).unwrap();
        // Once it has returned, only the new counters will do.
        let returned = medium.now();
        returned.images(&mut Random::of(seed), &mut |image| {
            let sound = layout_of(image).is_ok_and(|found| found.count == more);
            run.check(sound, "returned");
        });
        let mut left = Vec::new();
        for moment in medium.moments() {
            let mut chosen = random.below(64);
            moment.images(&mut Random::of(seed), &mut |image| {
                let sound = layout_of(image).is_ok_and(|found| {
                    let old = (found.count, &found.names) == (before.count, &before.names);
                    let new = (found.count, &found.names) == (more, &names);
                    let kept = (0..before.count).all(|n| value(image, &found, n) == n + 7);
                    let fresh = (before.count..found.count).all(|n| value(image, &found, n) == 0);
                    (old || new) && kept && fresh
                });
                run.check(sound, "grown");
                if sound && chosen == 0 {
                    left.push(image.clone());
                }
                chosen = chosen.wrapping_sub(1);
            });
        }
        // The next growth starts from what some crash left, or from the end.
        left.push(medium.seen().clone());
        start = left.swap_remove(random.below(left.len() as u64) as usize);
    }
}

/// Creates counters in the place of an empty file.
fn in_place(seed: u64, skipped: Option<usize>, run: &mut Run) {
    let mut random = Random::of(seed);
    let count = 1 + random.below(40);
    let names = match random.below(2) {
        0 => names(&mut random, count, &[]),
        _ => Vec::new(),
    };
    let layout = Layout::with_room(count, 1, &names, if names.is_empty() { 0 } else { 8192 });
    let mut medium = Simulated::on(Image::default(), skipped);
    store::create::write_in_place(&layout, &mut medium).unwrap();
    let is_new = |image: &Image| {
        layout_of(image).is_ok_and(|found| (found.count, &found.names) == (count, &names))
    };
    let returned = medium.now();
    returned.images(&mut random, &mut |image| {
        run.check(is_new(image), "returned")
    });
    for moment in medium.moments() {
        moment.images(&mut random, &mut |image| {
            // Made anew by the next opener.
            let begun = layout_of(image).is_err()
                && (image.bytes.is_empty()
                    || store::create::is_begun(&Simulated::on(image.clone(), None)) == Ok(true));
            run.check(begun || is_new(image), "in place");
        });
    }
}

#[test]
fn a_crash_leaves_an_empty_file_that_the_next_opener_fills() {
    all_are_sound(in_place);
}

#[test]
fn without_the_order_of_writes_a_file_cannot_be_filled_any_more() {
    let broken = |skipped| is_broken_without(in_place, skipped, "in place");
    assert!(broken(0), "the sync of the mark");
    assert!(broken(1), "the sync between the headers");
}

#[test]
fn a_crash_leaves_the_old_counters_or_the_new() {
    all_are_sound(story);
}

#[test]
fn without_the_order_of_writes_a_crash_leaves_something_else() {
    let broken = |skipped, what| is_broken_without(story, skipped, what);
    assert!(broken(0, "created"), "the sync before the name");
    assert!(broken(0, "grown"), "the sync before the first header");
    assert!(broken(1, "grown"), "the sync between the headers");
}
