//! The table of the guard: whoever holds a range finds it, whatever becomes of the others.

use std::ptr;

use crate::slot::{Guarded, ANONYMOUS};
use crate::table::{Changes, Table};
use loom::sync::Arc;
use loom::thread;

const LEN: usize = 0x1000;

fn range(start: usize) -> Guarded {
    Guarded {
        start,
        limit: start + LEN,
        end: start + LEN,
        fd: ANONYMOUS,
        file_offset: 0,
        delta: 0,
        page: LEN,
        writable: false,
        only_copy: false,
        fault: ptr::without_provenance(start),
    }
}

const BELOW: usize = 0x1000;
const OWN: usize = 0x3000;
const ABOVE: usize = 0x5000;

fn finds_own(table: &Table) {
    let found = table.find(OWN + 1).map(|(_, guarded)| guarded);
    assert_eq!(found, Some(range(OWN)), "the holder's own range");
}

/// For each height of the nodes, `change` changes what surrounds the holder's range while the holder looks for it.
fn model(change: fn(&Table, &mut Changes, usize)) {
    for heights in 0..4 {
        loom::model(move || {
            let (own_height, height) = (1 + heights % 2, 1 + heights / 2);
            let table = Arc::new(Table::new());
            let mut changes = Changes::new();
            table.insert_on(own_height, &mut changes, &range(OWN));
            let below = table.insert_on(height, &mut changes, &range(BELOW));
            let holder = {
                let table = table.clone();
                thread::spawn(move || finds_own(&table))
            };
            table.remove(&mut changes, below);
            change(&table, &mut changes, height);
            holder.join().unwrap();
            finds_own(&table);
        });
    }
}

#[test]
fn while_a_lower_one_goes_to_the_other_side() {
    model(|table, changes, height| {
        table.insert_on(height, changes, &range(ABOVE));
        assert!(table.find(BELOW).is_none());
        assert!(table.find(ABOVE + LEN - 1).is_some());
    });
}

#[test]
fn while_a_lower_one_is_replaced() {
    model(|table, changes, height| {
        table.insert_on(3 - height, changes, &range(BELOW + LEN));
        assert!(table.find(BELOW).is_none());
        assert!(table.find(BELOW + LEN).is_some());
        assert!(table.find(ABOVE).is_none());
    });
}

/// A search that is at a removed node gets back into the list.
#[test]
fn while_lower_ones_go() {
    for heights in 0..4 {
        loom::model(move || {
            let (height, lower_height) = (1 + heights % 2, 1 + heights / 2);
            let table = Arc::new(Table::new());
            let mut changes = Changes::new();
            table.insert_on(1, &mut changes, &range(OWN));
            let low = table.insert_on(lower_height, &mut changes, &range(BELOW));
            let high = table.insert_on(height, &mut changes, &range(BELOW + LEN));
            let holder = {
                let table = table.clone();
                thread::spawn(move || finds_own(&table))
            };
            table.remove(&mut changes, low);
            table.remove(&mut changes, high);
            holder.join().unwrap();
            assert!(table.find(BELOW).is_none());
        });
    }
}
