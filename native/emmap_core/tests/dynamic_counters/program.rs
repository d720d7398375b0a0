//! A program that uses dynamic counters in simulated memory, as `Dynamic` does on a map.

use std::collections::BTreeMap;

use emmap_core::counters::dynamic::directory::{self, Found};
use emmap_core::counters::dynamic::layout::{self, Geometry};
use emmap_core::counters::dynamic::recovery::Recovered;
use emmap_core::counters::dynamic::walk::walk;
use emmap_core::counters::dynamic::{Locked, Name, Result, Stop};
use emmap_core::store::{log, Shared};
use emmap_core::Errno;

use crate::memory::{Memory, KILLED};

/// The random number of the file.
pub const SALT: u64 = 0x1234_5678_9abc_def1;

/// All that can be observed: the counters with their values.
pub type State = BTreeMap<String, i64>;

#[derive(Clone, Copy)]
pub struct Program<'a> {
    pub memory: &'a Memory,
    pub geometry: Geometry,
}

pub fn new_file() -> Vec<u8> {
    vec![0; layout::ENTRIES as usize]
}

/// Names of all lengths: of one line and of several.
pub fn name(number: u64) -> String {
    let length = [1, 8, 20, 104, 105, 400, 1024][number as usize % 7];
    let mut name = format!("{number}/").repeat(length / 2 + 1);
    name.truncate(length.max(format!("{number}/").len()));
    name
}

pub fn is_killed<R>(result: &Result<R>) -> bool {
    matches!(result, Err(Stop::Posix(KILLED)))
}

impl<'a> Program<'a> {
    pub fn new(memory: &'a Memory, stripes: u32) -> Program<'a> {
        let geometry = Geometry {
            stripes,
            salt: SALT,
        };
        Program { memory, geometry }
    }

    pub fn locked(&self) -> Locked<'_, Memory> {
        Locked {
            shared: self.memory,
            geometry: &self.geometry,
        }
    }

    /// Another program takes the lock from one that was killed.
    pub fn take_over(&self) {
        self.memory.revive();
        log::replay(self.memory, &layout::LOG).unwrap();
    }

    pub fn word(&self, at: u64) -> u64 {
        self.memory.load(at).unwrap()
    }

    /// As after a reboot.
    pub fn recover(&self) -> Result<Recovered> {
        loop {
            let sync = || {
                self.memory.sync();
                Ok(())
            };
            match self.locked().recover(sync) {
                Err(Stop::Grow(to)) => self.memory.extend(to),
                result => return result,
            }
        }
    }

    /// As the lock of a real file is taken, with a recovery if one was interrupted.
    fn with<R>(&self, act: impl Fn(&Locked<Memory>) -> Result<R>) -> Result<R> {
        loop {
            if self.memory.load(layout::DIRECTORY)? == 0 {
                self.recover()?;
            }
            match act(&self.locked()) {
                Err(Stop::Grow(to)) => self.memory.extend(to),
                result => return result,
            }
        }
    }

    pub fn find_or_add(&self, name: &str) -> Result<u64> {
        let name = Name::new(name.as_bytes(), &self.geometry)?;
        match directory::find(self.memory, &self.geometry, &name)? {
            Found::At(at) => Ok(at),
            Found::Absent | Found::Unknown => {
                self.with(|locked| locked.find_or_add(&name, u64::MAX, true))
            }
        }
    }

    /// Whether a look-up without the lock finds it, or has to take the lock.
    pub fn finds(&self, name: &str) -> bool {
        let name = Name::new(name.as_bytes(), &self.geometry).unwrap();
        directory::find(self.memory, &self.geometry, &name) != Ok(Found::Absent)
    }

    /// Adds in one store, to the last stripe.
    pub fn add(&self, name: &str, value: i64) -> Result<()> {
        let at = self.find_or_add(name)? + 128 * u64::from(self.geometry.stripes - 1);
        let before = self.memory.load(at)?;
        Ok(self.memory.store(at, before.wrapping_add(value as u64))?)
    }

    fn value(&self, at: u64) -> emmap_core::Result<i64> {
        let stripes = 0..u64::from(self.geometry.stripes);
        stripes
            .map(|stripe| at + stripe * 128)
            .try_fold(0, |sum, at| {
                Ok::<_, Errno>(self.memory.load(at)? as i64 + sum)
            })
    }

    /// All counters; an error if the file breaks a rule: each name exists once, and is found.
    pub fn state(&self) -> std::result::Result<State, String> {
        let told = |error: Errno| format!("{error:?}");
        let mut state = State::new();
        let mut wrong = None;
        let mut from = layout::ENTRIES;
        loop {
            let next = walk(self.memory, &self.geometry, from, 3, |at, bytes| {
                let text = String::from_utf8(bytes.to_vec()).map_err(|_| Errno(1000))?;
                let name = Name::new(bytes, &self.geometry)?;
                let found = directory::find(self.memory, &self.geometry, &name)?;
                if found != Found::At(at) {
                    wrong = Some(format!("{text} at {at} is found {found:?}"));
                }
                if state.insert(text.clone(), self.value(at)?).is_some() {
                    wrong = Some(format!("{text} exists twice"));
                }
                Ok(())
            });
            match next.map_err(told)? {
                Some(next) => from = next,
                None => break,
            }
        }
        let count = self.word(layout::COUNT);
        match wrong {
            Some(wrong) => Err(wrong),
            None if count != state.len() as u64 => {
                Err(format!("{count} are counted, there are {}", state.len()))
            }
            None => Ok(state),
        }
    }
}
