use std::sync::mpsc::{channel, Receiver};

use super::*;
use crate::Options;

impl Keeper for Region {
    fn region(&self) -> &Region {
        self
    }
}

const LONG: Duration = Duration::from_secs(20);

fn anonymous() -> Arc<Region> {
    let options = Options {
        write: true,
        size: Some(1 << 20),
        ..Options::default()
    };
    Arc::new(Region::open(&options).unwrap())
}

fn both() -> [&'static Waits; 2] {
    let new = |many| &*Box::leak(Box::new(Waits::new(many)));
    [new(os::has_futex_wait_any), new(|| false)]
}

fn begin(
    waits: &'static Waits,
    region: &Arc<Region>,
    position: u64,
    expected: i64,
) -> (Option<Ticket>, Receiver<Result<i64>>) {
    let (sender, receiver) = channel();
    let told = Box::new(move |result| sender.send(result).unwrap());
    let waited = waits
        .wait(region.clone(), (position, expected), 7, || true, told)
        .unwrap();
    match waited {
        Waited::Changed(_) => (None, receiver),
        Waited::Waits(ticket) => (Some(ticket), receiver),
    }
}

fn change(region: &Region, position: u64, value: i64) {
    let word = region.word_mut(position).unwrap();
    word.store(value, Ordering::SeqCst);
    notify(region, position).unwrap();
}

#[test]
fn many_waiters_for_many_words() {
    for waits in both() {
        let region = anonymous();
        let count = waits.count();
        let all: Vec<_> = (0..600)
            .map(|n| begin(waits, &region, n % 200 * 8, 0).1)
            .collect();
        assert_eq!(waits.count(), count + 600);
        for n in 0..200 {
            change(&region, n * 8, n as i64 + 1);
        }
        for (n, receiver) in all.iter().enumerate() {
            assert_eq!(receiver.recv_timeout(LONG), Ok(Ok(n as i64 % 200 + 1)));
        }
        assert_eq!(waits.count(), count);
    }
}

#[test]
fn a_change_of_either_half_ends_a_wait() {
    for waits in both() {
        let region = anonymous();
        for value in [1, 1 << 32, -1, i64::MIN] {
            let (_, receiver) = begin(waits, &region, 64, 0);
            change(&region, 64, value);
            assert_eq!(receiver.recv_timeout(LONG), Ok(Ok(value)));
            change(&region, 64, 0);
        }
    }
}

#[test]
fn a_wake_without_a_change_ends_no_wait() {
    for waits in both() {
        let region = anonymous();
        let (_, receiver) = begin(waits, &region, 8, 0);
        notify(&region, 8).unwrap();
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        change(&region, 8, 5);
        assert_eq!(receiver.recv_timeout(LONG), Ok(Ok(5)));
        assert!(begin(waits, &region, 8, 0).0.is_none());
    }
}

#[test]
fn a_cancelled_wait_releases_the_region() {
    for waits in both() {
        let region = anonymous();
        let (ticket, receiver) = begin(waits, &region, 8, 0);
        let (kept, others) = begin(waits, &region, 8, 0);
        assert!(waits.cancel(ticket.unwrap()));
        assert!(!waits.cancel(ticket.unwrap()));
        assert!(receiver.recv().is_err());
        assert!(waits.cancel(kept.unwrap()));
        assert!(others.recv().is_err());
        let end = Instant::now() + LONG;
        while Arc::strong_count(&region) > 1 {
            assert!(Instant::now() < end);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn the_waits_of_an_owner_end() {
    for waits in both() {
        let region = anonymous();
        let receivers = [0, 8, 16].map(|position| begin(waits, &region, position, 0).1);
        waits.end(8, Errno::CLOSED);
        waits.end(7, Errno::CLOSED);
        for receiver in receivers {
            assert_eq!(receiver.recv_timeout(LONG), Ok(Err(Errno::CLOSED)));
        }
    }
}

#[test]
fn a_map_that_has_become_shorter() {
    for waits in both() {
        let path = std::env::temp_dir().join(format!("emmap_words_{}", std::process::id()));
        std::fs::write(&path, vec![0; 8192]).unwrap();
        let options = Options {
            path: Some(path.clone()),
            write: true,
            ..Options::default()
        };
        let region = Arc::new(Region::open(&options).unwrap());
        let (_, receiver) = begin(waits, &region, 8184, 0);
        region.resize(4096).unwrap();
        waits.look();
        assert_eq!(receiver.recv_timeout(LONG), Ok(Err(Errno::INVAL)));
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn waiting_on_the_calling_thread() {
    let region = anonymous();
    let short = Some(Duration::from_millis(20));
    assert_eq!(wait(&region, 0, 0, short), Ok(None));
    assert_eq!(wait(&region, 0, 1, None), Ok(Some(0)));
    assert_eq!(wait(&region, 4, 1, None), Err(Errno::INVAL));
    let other = region.clone();
    let waiting = std::thread::spawn(move || wait(&other, 0, 0, Some(LONG)));
    std::thread::sleep(Duration::from_millis(20));
    change(&region, 0, 9);
    assert_eq!(waiting.join().unwrap(), Ok(Some(9)));
}

#[test]
fn a_change_without_a_wake_is_not_polled_for() {
    let [waits, _] = both();
    let region = anonymous();
    let (_, receiver) = begin(waits, &region, 8, 0);
    // Until its thread sleeps.
    std::thread::sleep(Duration::from_millis(100));
    region.word_mut(8).unwrap().store(1, Ordering::SeqCst);
    if os::has_futex_wait_any() {
        assert!(receiver.recv_timeout(Duration::from_millis(100)).is_err());
    }
    notify(&region, 8).unwrap();
    assert_eq!(receiver.recv_timeout(LONG), Ok(Ok(1)));
}
