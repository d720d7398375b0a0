//! Files that are damaged or hostile: an error, or other bytes, but always an end.

use emmap_core::store::{BadFormat, Error};
use emmap_core::table::check::Progress;
use emmap_core::table::layout::{Layout, HEADER, LONGEST_PROBE, RECORDS};
use emmap_core::table::lookup::Found;
use emmap_core::table::walk::Step;
use emmap_core::table::Memory;
use proptest::prelude::*;

use crate::support::*;

fn small() -> Vec<u8> {
    let all: Vec<Pair> = (0..40u8)
        .map(|n| (vec![n; 1 + n as usize % 9], vec![n; 300]))
        .collect();
    built(options(true, 1 << 20), &all).0
}

/// A check notices every bit; a lookup returns the value, nothing, or an error.
#[test]
fn every_bit_is_noticed() {
    let file = small();
    let sound = layout(&file).unwrap();
    for at in (0..HEADER).chain(RECORDS as usize..file.len()) {
        let mut wrong = file.clone();
        wrong[at] ^= 1 << (at % 8);
        match layout(&wrong) {
            Err(_) => assert!(at < HEADER, "{at}"),
            Ok(layout) => {
                assert_eq!(layout, sound);
                assert!(
                    matches!(check(&wrong, &layout), Progress::Corrupt(_)),
                    "{at}"
                );
            }
        }
    }
}

#[test]
fn wrong_lengths_and_kinds() {
    let file = small();
    let bad = |file: &[u8]| match layout(file) {
        Err(Error::BadFormat(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(bad(&[]), BadFormat::Kind);
    assert_eq!(bad(b"EMMAPTBL"), BadFormat::Length);
    assert_eq!(bad(&file[..file.len() - 1]), BadFormat::Length);
    assert_eq!(bad(&[&file[..], &[0]].concat()), BadFormat::Length);
    assert_eq!(bad(&[b'x'; 5000]), BadFormat::Kind);
    let mut version = file.clone();
    version[8] = 2;
    seal(&mut version);
    assert_eq!(bad(&version), BadFormat::Version);
    let mut flags = file;
    flags[12] = 255;
    seal(&mut flags);
    assert_eq!(bad(&flags), BadFormat::Checksum);
}

fn seal(file: &mut [u8]) {
    let crc = crc32fast::hash(&file[..HEADER - 4]);
    file[HEADER - 4..HEADER].copy_from_slice(&crc.to_le_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The numbers of the header are plausible, the rest is anything.
    #[test]
    fn hostile_files_end(words in proptest::collection::vec((0usize..6000, any::<u64>()), 0..60),
                         numbers in proptest::collection::vec((0usize..12, 0u64..40), 0..3),
                         key in proptest::collection::vec(0u8..40, 0..10)) {
        let mut file = small();
        for (at, word) in words {
            let at = RECORDS as usize + at;
            if at + 8 <= file.len() {
                file[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
        }
        let mut layout = layout(&file).unwrap();
        for (number, delta) in numbers {
            let field = match number {
                0 => &mut layout.count,
                1 => &mut layout.records_end,
                2 => &mut layout.marks,
                3 => &mut layout.mark_count,
                4 => &mut layout.homes,
                5 => &mut layout.bucket_count,
                6 => &mut layout.longest_probe,
                _ => &mut layout.longest_value,
            };
            *field = (*field + 20).saturating_sub(delta);
        }
        // As if it had been read from the file.
        if let Ok(layout) = Layout::decode(&layout.encode()) {
            let memory = Memory::of_slice(&file);
            if let Found::Record(record) = layout.find(memory, &key, LONGEST_PROBE) {
                prop_assert!(record.end() <= layout.records_end);
            }
            let _ = layout.seek(memory, &key);
            let mut at = RECORDS;
            while let Step::Record(record) = layout.record_at(memory, at) {
                at = record.end();
            }
            let _ = check(&file, &layout);
        }
    }
}
