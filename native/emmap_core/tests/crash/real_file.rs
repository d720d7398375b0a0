//! The smallest structure in a real file, which other programs change, too.

use std::fs::OpenOptions;

use emmap_core::store::header::END;
use emmap_core::store::medium::Mapped;
use emmap_core::store::{self, Absent, BadFormat, Error, Medium, Structure};
use emmap_core::Errno;

use crate::number::Number;

#[test]
fn a_file_grows_under_its_map() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("number");
    let open = |slots, absent| store::open::<Number>(&path, &slots, absent);
    let refused = open(2, Absent::Refuse).err();
    assert_eq!(refused, Some(Error::Posix(Errno(libc::ENOENT))));
    let mut opened = open(2, Absent::Create).ok().unwrap();
    for value in 1..=20 {
        opened.grow(&(value * 40)).unwrap();
        let mut map = Mapped(&opened.region);
        opened.layout.put(&mut map, value).unwrap();
        map.sync().unwrap();
        assert_eq!(map.len().ok(), opened.layout.file_size());
        // Another opener, which has the larger file grow first in every second round.
        let more = value % 2 * (value * 40 + 7);
        let other = open(more, Absent::Refuse).ok().unwrap();
        let seen = other.layout.get(&Mapped(&other.region));
        assert_eq!(seen, Ok(Some(value)));
    }
}

#[test]
fn a_file_that_was_truncated_is_reattached_when_it_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("number");
    let mut opened = store::open::<Number>(&path, &2, Absent::Create)
        .ok()
        .unwrap();
    opened.grow(&500).unwrap();
    let number = opened.layout;
    number.put(&mut Mapped(&opened.region), 7).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let again = || store::reattach::<Number>(&opened.region, |_| Ok(()));
    file.set_len(END).unwrap();
    assert_eq!(again(), Err(BadFormat::Length.into()));
    let stale = Err(Errno(libc::ESTALE));
    assert_eq!(number.get(&Mapped(&opened.region)), stale.clone());
    file.set_len(whole.len() as u64).unwrap();
    assert_eq!(
        again(),
        Err(BadFormat::Content.into()),
        "zeros are no number"
    );
    assert_eq!(number.put(&mut Mapped(&opened.region), 8), stale.map(drop));
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(again(), Ok(()));
    assert_eq!(number.get(&Mapped(&opened.region)), Ok(Some(7)));
}
