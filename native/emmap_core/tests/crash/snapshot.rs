//! The control file of a snapshot: creation and publications.

use emmap_core::control_file::Layout;
use emmap_core::snapshot::{write, Version};
use emmap_core::store::{self, Structure};

use crate::medium::{Image, Simulated};
use crate::stories::{all_are_sound, is_broken_without, Random, Run};

fn found(image: &Image) -> Option<Version> {
    let read = Layout::<Version>::read(&Simulated::on(image.clone(), None));
    read.ok().map(|layout| layout.body)
}

fn story(seed: u64, skipped: Option<usize>, run: &mut Run) {
    let mut random = Random::of(seed);
    let layout = Layout::<Version>::new(&()).unwrap();
    let mut medium = Simulated::on(Image::default(), skipped);
    store::create::write(&layout, &mut medium).unwrap();
    for moment in medium.moments() {
        moment.images(&mut random, &mut |image| {
            let sound = !image.named || found(image) == Some(Version::default());
            run.check(sound, "created");
        });
    }
    let mut start = medium.seen().clone();
    for _ in 0..4 {
        let before = found(&start).expect("the start is sound");
        let after = Version {
            number: before.number + 1 + random.below(3),
            size: random.below(1 << 40),
            boot: 0,
        };
        let mut medium = Simulated::on(start.clone(), skipped);
        write(&mut medium, &after, true).unwrap();
        medium.now().images(&mut random, &mut |image| {
            run.check(found(image).as_ref() == Some(&after), "returned");
        });
        let moments = medium.moments();
        for moment in &moments {
            moment.images(&mut random, &mut |image| {
                let sound = found(image).is_some_and(|found| found == before || found == after);
                run.check(sound, "published");
            });
        }
        // The next publication starts from what some crash left.
        let moment = &moments[random.below(moments.len() as u64) as usize];
        moment.images(&mut random, &mut |image| {
            if found(image).is_some() {
                start = image.clone();
            }
        });
    }
}

#[test]
fn a_crash_leaves_the_old_version_or_the_new() {
    all_are_sound(story);
}

#[test]
fn each_sync_is_needed() {
    let broken = |skipped, what| is_broken_without(story, skipped, what);
    assert!(broken(0, "created"), "the sync before the name");
    assert!(broken(0, "returned"), "the sync of the header");
}
