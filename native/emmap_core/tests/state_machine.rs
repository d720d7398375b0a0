//! Random operations on a map, and directly on its file, compared with a model that knows every
//! result and every byte: what live views show of pages that were truncated, lost, extended and
//! repaired, and what each call returns. `PROPTEST_CASES` is the number of cases, and a failure prints its seed.

#[path = "state_machine/model.rs"]
mod model;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use emmap_core::region::{Read, Source, Wait, Written};
use emmap_core::{Errno, Options, Region};
use model::{Model, Shape, PAGE};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Operation {
    Read(usize, usize),
    Write(usize, Vec<u8>),
    Resize(usize),
    Truncate(usize),
    Describe,
    Double,
    Allocate(usize, usize),
    Sync,
    Reattach,
    /// Remembers a view, and looks at one of them.
    View(usize, usize),
    Touch(usize),
    /// Another program.
    SetFileSize(usize),
    Overwrite(usize, Vec<u8>),
    Reopen,
}

/// Around the borders of pages more often than elsewhere.
fn position() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..6 * PAGE,
        (0..7usize, 0..5usize).prop_map(|(page, by)| (page * PAGE + by).saturating_sub(2)),
    ]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(1..=255u8, 0..20),
        prop::collection::vec(1..=255u8, 1000..2 * PAGE),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        4 => (position(), 0..3 * PAGE).prop_map(|(at, count)| Read(at, count)),
        4 => (position(), data()).prop_map(|(at, data)| Write(at, data)),
        2 => position().prop_map(Resize),
        1 => position().prop_map(Truncate),
        1 => Just(Describe),
        1 => Just(Double),
        1 => (position(), 0..PAGE).prop_map(|(at, count)| Allocate(at, count)),
        1 => Just(Sync),
        3 => Just(Reattach),
        2 => (position(), 1..3 * PAGE).prop_map(|(at, count)| View(at, count)),
        4 => any::<usize>().prop_map(Touch),
        4 => position().prop_map(SetFileSize),
        2 => (position(), data()).prop_map(|(at, data)| Overwrite(at, data)),
        1 => Just(Reopen),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let offset = prop_oneof![3 => Just(0), 1 => 1..2 * PAGE, 1 => Just(PAGE)];
    let length = prop::option::weighted(0.3, 1..4 * PAGE);
    let mostly = prop::bool::weighted(0.8);
    let seldom = prop::bool::weighted(0.25);
    let flags = (mostly, seldom, seldom, any::<bool>(), any::<bool>());
    (flags, offset, length).prop_map(|(flags, offset, length)| {
        let (write, private, fixed_size, sparse, lock) = flags;
        Shape {
            write,
            private,
            fixed_size,
            offset,
            length,
            sparse,
            lock,
        }
    })
}

fn open(path: &Path, shape: &Shape) -> Region {
    let options = Options {
        path: Some(path.to_owned()),
        write: shape.write,
        sharing: match shape.private {
            true => emmap_core::options::Sharing::Private,
            false => emmap_core::options::Sharing::Shared,
        },
        fixed_size: shape.fixed_size,
        offset: shape.offset as u64,
        length: shape.length.map(|length| length as u64),
        sparse: shape.sparse,
        lock: shape.lock,
        ..Options::default()
    };
    Region::open(&options).unwrap()
}

fn pread(region: &Region, at: usize, count: usize) -> Result<Vec<u8>, Errno> {
    let mut out = Vec::new();
    if let Some((start, count)) = region.locate(at as u64, count) {
        out.resize(count, 0);
        // SAFETY: `out` has room for `count` bytes.
        let read = unsafe { region.copy_out(start, count, out.as_mut_ptr(), Wait::No) };
        assert_eq!(read, Read::Done(count));
    }
    region.check_fault().map(|()| out)
}

fn pwrite(region: &Region, at: usize, data: &[u8]) -> Result<(), Errno> {
    if region.writable() {
        region.check_fault()?;
    }
    loop {
        // SAFETY: `data` is a slice.
        let written =
            unsafe { region.copy_in(at as u64, data.as_ptr(), data.len(), Wait::No, || true) };
        match written? {
            Written::Done => return region.check_fault(),
            _ => {
                let source = Source::Bytes(data.as_ptr());
                // SAFETY: as above.
                if unsafe { region.write_past_end(at as u64, source, data.len(), || true) }? {
                    return region.check_fault();
                }
            }
        }
    }
}

/// A live view: it may outlive the pages it was made of, not the region.
struct View {
    at: usize,
    pointer: *const u8,
    count: usize,
}

impl View {
    fn bytes(&self) -> Vec<u8> {
        // SAFETY: the region is alive, and with it every address that was inside it once.
        let read = |at| unsafe { self.pointer.add(at).read_volatile() };
        (0..self.count).map(read).collect()
    }
}

fn run(shape: &Shape, initial: Vec<u8>, operations: Vec<Operation>) -> Result<(), TestCaseError> {
    emmap_core::guard::install().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    std::fs::write(&path, &initial).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let mut region = open(&path, shape);
    let mut model = Model::open(shape, initial);
    let mut views: Vec<View> = Vec::new();
    for operation in operations {
        match operation {
            Operation::Read(at, count) => {
                prop_assert!(
                    pread(&region, at, count) == model.read(at, count),
                    "{at} {count}"
                );
            }
            Operation::Write(at, data) if model.is_unpredictable(at, data.len()) => (),
            Operation::Write(at, data) => {
                prop_assert_eq!(pwrite(&region, at, &data), model.write(at, &data));
            }
            Operation::Resize(to) => {
                prop_assert_eq!(region.resize(to as u64), model.resize(to));
            }
            Operation::Truncate(to) => {
                prop_assert_eq!(region.truncate(to as u64), model.truncate(to));
            }
            Operation::Describe => {
                model.describe();
                prop_assert_eq!(region.describe(true).first_fault.is_some(), model.faulted);
            }
            Operation::Double if model.len > 40 * PAGE => (),
            Operation::Double => prop_assert_eq!(region.double(), model.double()),
            Operation::Allocate(at, count) => {
                let answer = region.allocate(at as u64, count as u64);
                prop_assert_eq!(answer, model.allocate(at, count));
            }
            Operation::Sync => prop_assert_eq!(region.sync(None, true), model.sync()),
            Operation::Reattach => {
                let expected = model.reattach();
                prop_assert_eq!(region.reattach(), expected.map(drop));
                // A reader has no room to grow in place: its old views show an older range, which
                // only those know who have them.
                if expected == Ok(true) && !shape.write {
                    views.clear();
                }
            }
            Operation::View(at, count) => {
                if let Some((at, count)) = region.locate(at as u64, count) {
                    // SAFETY: `locate` found it inside the map.
                    let pointer = unsafe { region.pointer(at) }.cast_const();
                    views.push(View { at, pointer, count });
                }
            }
            Operation::Touch(_) if views.is_empty() => (),
            Operation::Touch(number) => {
                let view = &views[number % views.len()];
                let expected = model.view(view.at, view.count);
                prop_assert!(view.bytes() == expected, "view {} {}", view.at, view.count);
            }
            Operation::SetFileSize(to) => {
                file.set_len(to as u64).unwrap();
                model.set_file_size(to);
            }
            Operation::Overwrite(at, data) => {
                file.write_all_at(&data, at as u64).unwrap();
                if !data.is_empty() {
                    model.overwrite(at, &data);
                }
            }
            Operation::Reopen => {
                views.clear();
                drop(region);
                region = open(&path, shape);
                model = Model::open(shape, model.file);
            }
        }
        prop_assert_eq!(region.len(), model.len);
        prop_assert_eq!(region.check_fault().is_err(), model.faulted);
        prop_assert!(std::fs::read(&path).unwrap() == model.file, "the file");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_answer_and_every_byte(
        shape in shape(),
        initial in prop_oneof![
            1 => Just(Vec::new()),
            4 => prop::collection::vec(1..=255u8, 1..5 * PAGE),
        ],
        operations in prop::collection::vec(operation(), 1..40),
    ) {
        run(&shape, initial, operations)?;
    }
}
