//! Any bytes in the control file of a snapshot or a mutex: what is refused is left as it was, and what is opened has a
//! version that it can have, from which the next one can be published.

use std::fs;
use std::path::Path;

use emmap_core::control_file::{self, MutexBody, SIZE, VERSION};
use emmap_core::snapshot::{self, Version};
use emmap_core::store::Absent;

use super::bytes::Bytes;
use super::traces::Traces;

/// Of a header: where its body begins, and its bytes with the checksum (`docs/formats.md`).
const BODY: usize = 24;
const HEADERS: [usize; 2] = [0, 4096];

pub fn run(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let directory = super::directory();
    let path = directory.path().join("control");
    let traces = Traces::before();
    let is_mutex = bytes.flag();
    match bytes.below(4) {
        0 => fs::write(&path, bytes.rest()).expect("a file"),
        _ => {
            create(&path, is_mutex, bytes.below(4) as u64);
            change(&path, is_mutex, &mut bytes);
        }
    }
    let before = fs::read(&path).expect("a file");
    let opened = match is_mutex {
        true => control_file::open::<MutexBody>(&path, Absent::Refuse).map(drop),
        false => look(&path),
    };
    let after = fs::read(&path).expect("a file");
    match opened {
        Err(_) => assert!(after == before, "refused, and changed"),
        Ok(()) => assert!(after.len() as u64 >= SIZE, "shorter than its header says"),
    }
    traces.check(directory.path());
}

fn create(path: &Path, is_mutex: bool, versions: u64) {
    if is_mutex {
        drop(control_file::open::<MutexBody>(path, Absent::Create).expect("a new file"));
        return;
    }
    let (region, _) = snapshot::open(path, Absent::Create).expect("a new file");
    for number in 1..=versions {
        let version = Version {
            number,
            ..Version::default()
        };
        snapshot::publish(&region, &version, false).expect("the next version");
    }
}

/// Changes words of the headers, which get their checksums again, and behind them.
fn change(path: &Path, is_mutex: bool, bytes: &mut Bytes) {
    let mut file = fs::read(path).expect("a file");
    let length = if is_mutex { BODY + 8 } else { BODY + 32 };
    for _ in 0..bytes.below(8) {
        let at = match bytes.below(3) {
            0 => 8 * bytes.below(file.len() / 8),
            1 => VERSION as usize,
            _ => HEADERS[bytes.below(2)] + 8 * bytes.below(length / 8),
        };
        if let Some(place) = file
            .get_mut(at..)
            .and_then(|rest| rest.first_chunk_mut::<8>())
        {
            *place = bytes.altered(u64::from_le_bytes(*place)).to_le_bytes();
        }
    }
    if bytes.flag() {
        for start in HEADERS {
            let crc = crc32fast::hash(&file[start..start + length]);
            file[start + length..start + length + 4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    if bytes.flag() {
        file.truncate(file.len() - bytes.below(file.len()));
    }
    fs::write(path, file).expect("a file");
}

fn look(path: &Path) -> Result<(), control_file::Error> {
    let (region, _) = snapshot::open(path, Absent::Refuse)?;
    let version = snapshot::in_force(&region)?;
    let number = snapshot::number(&region).expect("inside the file");
    assert!(version.number < i64::MAX as u64);
    // The word may be ahead of a damaged file's header, but not behind it.
    assert!(
        number as i64 >= version.number as i64,
        "a reader would miss it"
    );
    let next = Version {
        number: version.number + 1,
        ..Version::default()
    };
    if next.number < i64::MAX as u64 {
        snapshot::publish(&region, &next, false)?;
        assert_eq!(snapshot::in_force(&region)?, next);
    }
    Ok(())
}
