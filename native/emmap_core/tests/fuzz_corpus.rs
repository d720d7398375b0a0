//! What the fuzzers found once, again: every file of their corpus through the same function
//! (`native/fuzz`, `make fuzz`).

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::path::Path;

/// In one test, for a run counts the descriptors of the whole process.
#[test]
fn the_corpus() {
    replay("options", fuzz::options::run);
    replay("counters", fuzz::counters::run);
    replay("dynamic_counters", fuzz::dynamic_counters::run);
    replay("queue", fuzz::queue::run);
    replay("blocks", fuzz::blocks::run);
    replay("table", fuzz::table::run);
    replay("snapshot", fuzz::snapshot::run);
}

fn replay(target: &str, run: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut files: Vec<_> = corpus
        .join(target)
        .read_dir()
        .expect("a corpus")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(files.len() > 100, "only {} files", files.len());
    for file in files {
        println!("{}", file.display());
        run(&std::fs::read(file).expect("a file"));
    }
}
