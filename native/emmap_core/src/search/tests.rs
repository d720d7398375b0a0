//! Beside a walk over the bytes, with blocks of a few bytes so that everything lies across borders.

use proptest::prelude::*;

use super::*;
use crate::Options;

fn region(bytes: &[u8]) -> Region {
    let options = Options {
        write: true,
        size: Some(bytes.len().max(1) as u64),
        ..Options::default()
    };
    let region = Region::open(&options).unwrap();
    // SAFETY: the slice has that many bytes.
    let written = unsafe { region.copy_in(0, bytes.as_ptr(), bytes.len(), Wait::Yes, || true) };
    written.unwrap();
    region
}

/// The longest of the patterns that `bytes` begins with.
fn longest(patterns: &[Vec<u8>], bytes: &[u8]) -> Option<usize> {
    let fitting = patterns.iter().filter(|each| bytes.starts_with(each));
    fitting.map(Vec::len).max()
}

fn walk(patterns: &[Vec<u8>], bytes: &[u8], from: usize, stop: usize) -> Vec<Match> {
    let (mut at, mut all) = (from, Vec::new());
    while at < stop {
        match longest(patterns, &bytes[at..stop]) {
            None => at += 1,
            Some(len) => {
                all.push(Match {
                    position: at as u64,
                    len,
                });
                at += len;
            }
        }
    }
    all
}

fn walk_back(patterns: &[Vec<u8>], bytes: &[u8], from: usize, stop: usize) -> Option<Match> {
    (from..stop).rev().find_map(|at| {
        longest(patterns, &bytes[at..stop]).map(|len| Match {
            position: at as u64,
            len,
        })
    })
}

fn bytes_only(bytes: usize) -> Budget {
    Budget { bytes, until: None }
}

/// All matches, however often the search pauses.
fn all(searcher: &Searcher, from: u64, stop: u64) -> (Vec<Match>, u64) {
    let (mut at, mut found) = (Place::from(from), Vec::new());
    while let Search::Paused(next) = searcher
        .each(at, stop, |each| {
            found.push(each);
            true
        })
        .unwrap()
    {
        assert!(next.position > at.position, "a pause must come forward");
        at = next;
    }
    let (mut at, mut count) = (Place::from(from), 0);
    while let Search::Paused(next) = searcher.count(at, stop, &mut count).unwrap() {
        assert!(next.position > at.position, "a pause must come forward");
        at = next;
    }
    (found, count)
}

fn last(searcher: &Searcher, from: u64, stop: u64) -> Option<Match> {
    let mut before = Place::from(stop);
    loop {
        match searcher.last(from, before, stop).unwrap() {
            (Search::Paused(next), None) => {
                assert!(next.position < before.position, "a pause must come forward");
                before = next;
            }
            (Search::Done, found) => return found,
            other => panic!("{other:?}"),
        }
    }
}

fn letters(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(b'a'..b'c', 1..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn agrees_with_a_walk(
        bytes in letters(120),
        patterns in proptest::collection::vec(letters(7), 1..5),
        (one, other) in (0usize..130, 0usize..130),
        step in 1usize..40,
        budget in 1usize..500,
        otherwise: bool,
    ) {
        let region = region(&bytes);
        let prepared = match otherwise {
            true => Patterns::otherwise(&patterns).unwrap(),
            false => Patterns::new(&patterns).unwrap(),
        };
        let step = step.max(prepared.longest());
        let searcher = Searcher { region: &region, patterns: &prepared, wait: Wait::Yes, budget: bytes_only(budget), step };
        let (from, stop) = (one.min(other), one.max(other));
        let inside = stop.min(bytes.len());

        let expected = walk(&patterns, &bytes, from, inside);
        let (found, count) = all(&searcher, from as u64, stop as u64);
        prop_assert_eq!(count, expected.len() as u64);
        prop_assert_eq!(found, expected);
        let expected = walk_back(&patterns, &bytes, from, inside);
        prop_assert_eq!(last(&searcher, from as u64, stop as u64), expected);
    }
}

#[test]
fn what_is_no_pattern() {
    let none: [&[u8]; 0] = [];
    assert_eq!(Patterns::new(&none).err(), Some(Errno::INVAL));
    assert_eq!(Patterns::new(&[""]).err(), Some(Errno::INVAL));
    assert_eq!(Patterns::new(&["a", ""]).err(), Some(Errno::INVAL));
    let large = vec![vec![b'a'; MOST_OF_ONE + 1], vec![b'b']];
    assert_eq!(Patterns::new(&large).err(), Some(Errno::NOMEM));
}

#[test]
fn a_pattern_of_more_than_a_block() {
    let pattern: Vec<u8> = (0..BLOCK * 3).map(|n| (n % 251) as u8).collect();
    let mut bytes = vec![7u8; 100_000];
    bytes.extend_from_slice(&pattern[..BLOCK * 2]);
    bytes.extend_from_slice(&pattern);
    let region = region(&bytes);
    let prepared = Patterns::new(&[&pattern]).unwrap();
    let searcher = Searcher::new(&region, &prepared, Wait::Yes, bytes_only(1 << 20));
    let expected = Match {
        position: 100_000 + 2 * BLOCK as u64,
        len: pattern.len(),
    };
    assert_eq!(all(&searcher, 0, u64::MAX), (vec![expected], 1));
    assert_eq!(last(&searcher, 0, u64::MAX), Some(expected));
}

#[test]
fn enough_is_enough() {
    let region = region(&[b'a'; 1000]);
    let prepared = Patterns::new(&["a"]).unwrap();
    let searcher = Searcher::new(&region, &prepared, Wait::Yes, bytes_only(1 << 20));
    let mut seen = 0;
    let end = searcher.each(0.into(), u64::MAX, |_| {
        seen += 1;
        seen < 3
    });
    assert_eq!((end, seen), (Ok(Search::Done), 3));
}

#[test]
fn a_long_list_takes_no_more_memory_than_it_says() {
    // No two alike, so that the automaton has a state for each byte.
    let mut state = 1u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let patterns: Vec<Vec<u8>> = (0..2)
        .map(|_| (0..100_000).map(|_| byte()).collect())
        .collect();
    let prepared = Patterns::new(&patterns).unwrap();
    assert!(prepared.memory() < 30 * 200_000, "{}", prepared.memory());
    let mut bytes = vec![b'.'; 300_000];
    bytes.extend_from_slice(&patterns[1]);
    let region = region(&bytes);
    let searcher = Searcher::new(&region, &prepared, Wait::Yes, bytes_only(1 << 20));
    let expected = Match {
        position: 300_000,
        len: 100_000,
    };
    assert_eq!(all(&searcher, 0, u64::MAX), (vec![expected], 1));
}
