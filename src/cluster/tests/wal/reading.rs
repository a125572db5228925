//! Followers that are far behind read the log while it is written.

use std::path::Path;

use crossdock_cluster::wal::{Reader, UNLIMITED, Wal, purge, save_snapshot};
use crossdock_zab::{Point, Write, Zxid};

use super::{SMALL, batches, create, end, points, state, summary, txn, zxid};

/// All that follows a transaction, read in pieces.
fn read_after(folder: &Path, after: Zxid, count: usize, bytes: usize) -> Option<Vec<Zxid>> {
    let mut reader = Reader::start(folder, after).expect("a good log")?;
    let mut found = Vec::new();
    loop {
        let txns = reader.next(count, bytes).expect("a good log");
        assert!(txns.len() <= count);
        if txns.is_empty() {
            return Some(found);
        }
        found.extend(txns.iter().map(|txn| txn.zxid));
    }
}

#[test]
fn a_log_is_read_in_pieces_while_it_is_written_and_purged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = create(folder.path(), SMALL);
    for batch in &batches() {
        wal.append(batch).expect("a disk");
    }
    // After the truncation to 1:3, in epoch 2.
    let mut last = points()[2];
    let mut points = Vec::new();
    let mut write = |wal: &mut Wal, counter| {
        let next = Write::Append { after: last.zxid, txns: vec![txn(last, zxid(2, counter), 500)] };
        last = end(&next);
        points.push(last);
        wal.append(&[next]).expect("a disk");
        last
    };
    for counter in 1..=40 {
        write(&mut wal, counter);
    }
    let expected = |from: u32, to: u32| (from..=to).map(|counter| zxid(2, counter)).collect::<Vec<_>>();
    for (count, bytes) in [(1, 1), (7, 10_000), (1_000, 1_200), (1_000, usize::MAX)] {
        assert_eq!(read_after(folder.path(), zxid(1, 3), count, bytes), Some(expected(1, 40)));
        assert_eq!(read_after(folder.path(), zxid(2, 17), count, bytes), Some(expected(18, 40)));
        assert_eq!(read_after(folder.path(), zxid(2, 40), count, bytes), Some(Vec::new()));
    }
    // It continues with what is written meanwhile, in later segments as well.
    let mut reader = Reader::start(folder.path(), zxid(2, 39)).expect("a good log").expect("it is there");
    assert_eq!(reader.next(10, 10_000).expect("a good log").len(), 1);
    assert!(reader.next(10, 10_000).expect("a good log").is_empty());
    write(&mut wal, 41);
    assert_eq!(reader.next(10, 10_000).expect("a good log").len(), 1);
    // What a follower needs is not purged, and what nobody needs is.
    for at in [10, 20, 41] {
        let point = match at {
            41 => write(&mut wal, 42),
            _ => Point { zxid: zxid(2, at), ..Point::default() },
        };
        save_snapshot(folder.path(), &summary(point), UNLIMITED, state(b"state")).expect("a disk");
    }
    purge(folder.path(), zxid(2, 42), wal.segment(), Some(zxid(2, 5))).expect("a disk");
    assert_eq!(read_after(folder.path(), zxid(2, 5), 3, 10_000), Some(expected(6, 42)));
    assert!(purge(folder.path(), zxid(2, 42), wal.segment(), None).expect("a disk") > 1);
    assert_eq!(read_after(folder.path(), zxid(2, 5), 3, 10_000), None);
    assert_eq!(read_after(folder.path(), zxid(2, 20), 3, 10_000), Some(expected(21, 42)));
}

/// What is read before a truncation is not of this history any more.
#[test]
fn a_truncation_behind_what_was_read_ends_reading() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut wal = create(folder.path(), SMALL);
    for batch in &batches()[..3] {
        wal.append(batch).expect("a disk");
    }
    let mut reader = Reader::start(folder.path(), zxid(1, 1)).expect("a good log").expect("it is there");
    assert_eq!(reader.next(2, 10_000).expect("a good log").len(), 2);
    assert_eq!(reader.next(2, 10_000).expect("a good log").len(), 1);
    for batch in &batches()[3..] {
        wal.append(batch).expect("a disk");
    }
    wal.append(&[Write::Append { after: zxid(1, 3), txns: vec![txn(points()[2], zxid(2, 1), 5)] }]).expect("a disk");
    assert!(reader.next(10, 10_000).expect("a good log").is_empty());
    assert!(reader.next(10, 10_000).expect("a good log").is_empty());
    // From before the truncation, the history that is left is read.
    assert_eq!(read_after(folder.path(), zxid(1, 1), 10, 10_000), Some(vec![zxid(1, 2), zxid(1, 3), zxid(2, 1)]));
}
