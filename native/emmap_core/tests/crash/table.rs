//! A build that a crash interrupts: no file has the name, or the complete table.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use emmap_core::store::Medium;
use emmap_core::table::build::files::Files;
use emmap_core::table::build::{Added, Builder, Duplicates, Options, Phase};
use emmap_core::table::check::{Place, Progress};
use emmap_core::table::{Flags, Layout, Memory};
use emmap_core::Result;

use crate::medium::{Image, Simulated};
use crate::stories::{all_are_sound, is_broken_without, Random, Run};

/// A medium that the test looks at when the build is over.
#[derive(Clone)]
struct Watched(Rc<RefCell<Simulated>>);

impl Watched {
    fn on(skipped: Option<usize>) -> Watched {
        Watched(Rc::new(RefCell::new(Simulated::on(
            Image::default(),
            skipped,
        ))))
    }
}

impl Medium for Watched {
    fn len(&self) -> Result<u64> {
        Medium::len(&*self.0.borrow())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.0.borrow().read_at(offset, out)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.0.borrow_mut().write_at(offset, data)
    }

    fn extend(&mut self, to: u64, allocated: u64) -> Result<()> {
        self.0.borrow_mut().extend(to, allocated)
    }

    fn sync(&mut self) -> Result<()> {
        self.0.borrow_mut().sync()
    }

    fn publish(&mut self) -> Result<()> {
        self.0.borrow_mut().publish()
    }
}

struct Watching(Watched);

impl Files for Watching {
    type Target = Watched;
    type Spill = Watched;

    fn target(&mut self) -> &mut Watched {
        &mut self.0
    }

    fn spill(&mut self) -> Result<Watched> {
        Ok(Watched::on(None))
    }
}

fn is_complete(image: &Image, count: u64) -> bool {
    let Ok(layout) = Layout::read(&Simulated::on(image.clone(), None)) else {
        return false;
    };
    let until = Instant::now() + Duration::from_secs(60);
    let checked = layout.check(Memory::of_slice(&image.bytes), Place::default(), until);
    layout.count == count && checked == Progress::Intact
}

fn story(seed: u64, skipped: Option<usize>, run: &mut Run) {
    let mut random = Random::of(seed);
    let options = Options {
        flags: Flags {
            sorted: random.below(2) == 1,
            ..Flags::default()
        },
        seed,
        duplicates: Duplicates::Last,
        // Mostly with temporary files.
        memory: 100 + random.below(2000) as usize,
    };
    let target = Watched::on(skipped);
    let mut builder = Builder::new(options, Watching(target.clone()));
    let count = random.below(40);
    for number in 0..count {
        let (key, value) = (number.to_be_bytes(), vec![7; random.below(60) as usize]);
        let (key, value) = ((key.as_ptr(), key.len()), (value.as_ptr(), value.len()));
        // SAFETY: both outlive the call.
        while unsafe { builder.add(key, value) }.unwrap() == Added::Full {
            builder.advance(Instant::now()).unwrap();
        }
    }
    builder.finish();
    while builder.advance(Instant::now()).unwrap().phase != Phase::Done {}
    let (moments, now) = {
        let mut target = target.0.borrow_mut();
        (target.moments(), target.now())
    };
    for moment in moments {
        moment.images(&mut random, &mut |image| {
            run.check(!image.named || is_complete(image, count), "built");
        });
    }
    now.images(&mut random, &mut |image| {
        run.check(image.named && is_complete(image, count), "returned");
    });
}

#[test]
fn a_crash_leaves_no_table_or_all_of_it() {
    all_are_sound(story);
}

#[test]
fn each_sync_is_needed() {
    assert!(is_broken_without(story, 0, "built"), "before the name");
    assert!(is_broken_without(story, 1, "returned"), "of the name");
}
