//! The records of an array, read and written through `zerocopy`.

use std::fs::{self, OpenOptions};

use memmap2::MmapOptions;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `[id: :u32, gap: 4, price: :f64, symbol: {:bytes, 8}]` on a little-endian machine.
#[derive(Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Trade {
    id: u32,
    gap: [u8; 4],
    price: f64,
    symbol: [u8; 8],
}

/// What `Emmap.Array` writes: `test/emmap/array_test.exs` compares it.
const GOLDEN: &[u8] = include_bytes!("../../../test/fixtures/formats/array-records.bin");

fn trade(id: u32) -> Trade {
    let letter = b'A' + (id % 26) as u8;
    Trade {
        id,
        gap: [0; 4],
        price: f64::from(id) / 4.0,
        symbol: [letter, letter, letter, 0, 0, 0, 0, 0],
    }
}

#[test]
#[cfg(target_endian = "little")]
fn records_are_structs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trades.bin");
    fs::write(&path, GOLDEN).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    // SAFETY: only this test has the file.
    let mut map = unsafe { MmapOptions::new().map_mut(&file) }.unwrap();

    let trades = <[Trade]>::mut_from_bytes(&mut map).unwrap();
    assert_eq!(trades, (0..100).map(trade).collect::<Vec<_>>());

    // Written again, every byte of every record is the same.
    for (trade, id) in trades.iter_mut().zip((0..100).rev()) {
        *trade = self::trade(id);
    }
    trades.reverse();
    assert_eq!(trades.as_bytes(), GOLDEN);
    drop(map);
    assert_eq!(fs::read(&path).unwrap(), GOLDEN);
}
