//! Rows outlive their process, their segment and their index; what is broken costs its own rows.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};

use super::*;
use crate::digest::Digest;

/// Everything has an index.
const INDEXED: Limits = Limits { small: 0, ..LIMITS };

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("output", DataType::Utf8, false)]))
}

fn key(n: u32) -> RowKey {
    RowKey(Digest::of("test", |hasher| {
        hasher.update(&n.to_le_bytes());
    }))
}

fn kept(texts: &[&str]) -> RowAnswer {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
    RowAnswer::Kept(RecordBatch::try_new(schema(), vec![texts]).unwrap().into())
}

fn row(n: u32) -> (RowKey, RowAnswer) {
    (key(n), kept(&[&format!("row {n}")]))
}

fn open(folder: &Path, limits: Limits) -> RowLog {
    RowLog::with(folder, schema(), limits, None).unwrap()
}

fn holds(log: &RowLog, rows: std::ops::Range<u32>) -> bool {
    let keys: Vec<_> = rows.clone().map(key).collect();
    let known = log.knows(&keys).unwrap().into_iter().all(|known| known);
    known && log.recall(&keys).unwrap() == rows.map(|n| Some(row(n).1)).collect::<Vec<_>>()
}

/// A sealed segment with these rows, each part a frame.
fn sealed(folder: &Path, parts: &[std::ops::Range<u32>]) -> PathBuf {
    let log = open(folder, INDEXED);
    for part in parts {
        log.commit(&part.clone().map(row).collect::<Vec<_>>()).unwrap();
    }
    segment::files(folder, "rows").unwrap().pop().unwrap()
}

#[test]
fn rows_outlive_the_process_that_answered_them() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [(key(1), kept(&["a", "b"])), (key(2), RowAnswer::Rejected("too long".into())), (key(3), kept(&[]))];
    let log = open(folder.path(), LIMITS);
    log.commit(&rows[..2]).unwrap();
    log.commit(&rows[2..]).unwrap();
    let expected = [Some(rows[2].1.clone()), None, Some(rows[0].1.clone()), Some(rows[1].1.clone())];
    let asked = [key(3), key(9), key(1), key(2)];
    assert_eq!(log.recall(&asked).unwrap(), expected);
    // Another process finds them while this one may still write, and after it is gone.
    assert_eq!(open(folder.path(), INDEXED).recall(&asked).unwrap(), expected);
    drop(log);
    for limits in [LIMITS, INDEXED, INDEXED] {
        let log = open(folder.path(), limits);
        assert_eq!(log.recall(&asked).unwrap(), expected);
        assert_eq!(log.knows(&asked).unwrap(), [true, false, true, true]);
    }
    assert_eq!(segment::files(folder.path(), "index").unwrap().len(), 1);
}

#[test]
fn what_was_kept_of_a_row_and_why_the_rest_was_not_are_both_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let RowAnswer::Kept(some) = kept(&["a", "b"]) else { unreachable!() };
    let rows = [(key(1), RowAnswer::Partly(some, "left out: c".into())), (key(2), kept(&["d"]))];
    open(folder.path(), LIMITS).commit(&rows).unwrap();
    let expected = [Some(rows[1].1.clone()), Some(rows[0].1.clone())];
    assert_eq!(open(folder.path(), LIMITS).recall(&[key(2), key(1)]).unwrap(), expected);
}

#[test]
fn a_torn_or_flipped_frame_costs_only_its_own_rows() {
    for limits in [LIMITS, INDEXED] {
        let folder = tempfile::tempdir().unwrap();
        let path = sealed(folder.path(), &[1..2, 2..3, 3..4]);
        let whole = fs::read(&path).unwrap();
        let ends = [0, 1, 2].map(|n| whole.len() - (2 - n) * (whole.len() - segment::HEADER.len()) / 3);
        let check = |bytes: &[u8], may_be_lost: &dyn Fn(usize) -> bool, what: &str| {
            fs::write(&path, bytes).unwrap();
            let log = open(folder.path(), limits);
            for (n, answer) in log.recall(&[key(1), key(2), key(3)]).unwrap().into_iter().enumerate() {
                assert!(answer.is_none() || answer == Some(row(n as u32 + 1).1), "{what}: frame {n}");
                assert!(answer.is_some() || may_be_lost(n), "{what}: frame {n} is lost");
            }
        };
        for cut in (0..whole.len()).step_by(11) {
            check(&whole[..cut], &|n| cut < ends[n], &format!("cut at {cut}"));
        }
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 16;
            let its_own = |n: usize| at < ends[n] && (n == 0 || at >= ends[n - 1]);
            check(&bytes, &its_own, &format!("byte {at} flipped"));
        }
    }
}

/// Every byte of a segment and of its index: what is damaged is told once, moved, and costs its own rows only.
#[test]
fn what_is_damaged_is_put_aside_when_it_is_met() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("rows/operator");
    let quarantine = Arc::new(Quarantine::of(root.path()));
    let path = sealed(&folder, &[0..2, 2..4, 4..6]);
    let index = segment::index_path(&path);
    drop(open(&folder, INDEXED));
    let whole = [&path, &index].map(|path| fs::read(path).unwrap());
    let keys: Vec<_> = (0..6).map(key).collect();
    for limits in [LIMITS, INDEXED] {
        let try_it = |damaged: &Path, bytes: &[u8], what: &str| {
            fs::remove_dir_all(&folder).unwrap();
            fs::create_dir_all(&folder).unwrap();
            let _ = fs::remove_dir_all(root.path().join("quarantine"));
            for (path, bytes) in [&path, &index].into_iter().zip(&whole) {
                fs::write(path, bytes).unwrap();
            }
            fs::write(damaged, bytes).unwrap();
            let begin = || RowLog::with(&folder, schema(), limits, Some(quarantine.clone())).unwrap();
            let log = begin();
            let lost: Vec<_> = (0..6).filter(|n| log.recall(&keys[*n..=*n]).unwrap() == [None]).collect();
            let told = quarantine.told();
            assert_eq!(told.len(), 1, "{what}: {told:#?}");
            assert!(lost.len() <= 2 || what.starts_with("cut"), "{what}: {lost:?} are lost");
            let kept = root.path().join("quarantine").join(damaged.strip_prefix(root.path()).unwrap());
            assert_eq!(fs::read(kept).unwrap(), bytes, "{what}: it is not in the quarantine: {told:?}");
            log.commit(&lost.iter().map(|n| row(*n as u32)).collect::<Vec<_>>()).unwrap();
            drop(log);
            assert!(holds(&begin(), 0..6), "{what}: asked again");
            assert_eq!(quarantine.told(), Vec::<String>::new(), "{what}: it is told once");
        };
        for (damaged, whole) in [&path, &index].into_iter().zip(&whole) {
            for at in (0..whole.len()).step_by(if limits.small == 0 { 1 } else { 5 }) {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                try_it(damaged, &bytes, &format!("byte {at} of {}", damaged.display()));
            }
            for length in (0..whole.len()).step_by(37) {
                try_it(damaged, &whole[..length], &format!("cut at {length} of {}", damaged.display()));
            }
        }
    }
}

/// The system's refusal is no damage: it is told, nothing is moved, and all rows are found.
#[test]
fn an_index_that_can_not_be_read_or_kept_is_told() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("rows/operator");
    let quarantine = Arc::new(Quarantine::of(root.path()));
    let index = segment::index_path(&sealed(&folder, &[0..50, 50..60]));
    // A folder can be opened, and neither mapped nor replaced.
    fs::create_dir_all(index.join("held")).unwrap();
    let log = RowLog::with(&folder, schema(), INDEXED, Some(quarantine.clone())).unwrap();
    assert!(holds(&log, 0..60));
    let told = quarantine.told();
    let says = |at: usize, what: &str| told[at].contains(what) && told[at].contains("operator") && index.is_dir();
    assert!(told.len() == 2 && says(0, "is not used: failed to map") && says(1, "is not kept: failed to"), "{told:#?}");
}

/// Its frames do not lie evenly: they are copied out of the mapped file.
#[test]
fn a_segment_of_before_is_read() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("rows/operator");
    let path = sealed(&folder, &[0..50, 50..60]);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, [b"retort rows 2\n", &bytes[segment::HEADER.len()..]].concat()).unwrap();
    let quarantine = Arc::new(Quarantine::of(root.path()));
    let log = RowLog::with(&folder, schema(), INDEXED, Some(quarantine.clone())).unwrap();
    assert!(holds(&log, 0..60) && holds(&log, 3..4));
    assert_eq!(quarantine.told(), Vec::<String>::new());
}

#[test]
fn a_joined_segment_whose_header_is_damaged_keeps_its_rows() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("rows/operator");
    let quarantine = Arc::new(Quarantine::of(root.path()));
    sealed(&folder, &(0..1200).map(|n| n..n + 1).collect::<Vec<_>>());
    for _ in 0..3 {
        let begin = || RowLog::with(&folder, schema(), LIMITS, Some(quarantine.clone())).unwrap();
        assert!(holds(&begin(), 0..1200));
        assert_eq!(quarantine.told(), Vec::<String>::new());
        let joined = segment::files(&folder, "rows").unwrap();
        assert_eq!(joined.len(), 1);
        let mut bytes = fs::read(&joined[0]).unwrap();
        bytes[3] ^= 1;
        fs::write(&joined[0], bytes).unwrap();
        assert!(holds(&begin(), 0..1200));
        assert_eq!(quarantine.told().len(), 1);
    }
}

#[test]
fn an_index_that_is_not_right_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = sealed(folder.path(), &[0..1500, 1500..2000]);
    assert!(holds(&open(folder.path(), INDEXED), 0..2000));
    let index = segment::index_path(&path);
    let whole = fs::read(&index).unwrap();
    for at in (0..70).step_by(5).chain((70..whole.len()).step_by(1999)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&index, &bytes).unwrap();
        assert!(holds(&open(folder.path(), INDEXED), 0..2000), "byte {at} flipped");
        assert!(holds(&open(folder.path(), INDEXED), 0..2000), "byte {at} flipped, opened again");
        assert_eq!(fs::read(&index).unwrap(), whole, "byte {at} flipped: it was not made anew");
    }
    for cut in [0, 10, 48, 60, whole.len() - 1] {
        fs::write(&index, &whole[..cut]).unwrap();
        assert!(holds(&open(folder.path(), INDEXED), 0..2000), "cut at {cut}");
    }
    // One that belongs to another segment of that name.
    sealed(folder.path(), &[2000..2050, 2050..2100]);
    let other = segment::files(folder.path(), "rows").unwrap().into_iter().find(|other| *other != path).unwrap();
    fs::copy(&index, segment::index_path(&other)).unwrap();
    assert!(holds(&open(folder.path(), INDEXED), 0..2100));
}

#[test]
fn keys_that_begin_alike_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let alike = |last: u8| {
        let mut bytes = [7; 32];
        bytes[31] = last;
        RowKey(Digest::from_bytes(bytes))
    };
    let rows: Vec<_> = (0..200).map(|n| (alike(n), kept(&[&format!("alike {n}")]))).collect();
    {
        let log = open(folder.path(), INDEXED);
        log.commit(&(0..3000).map(row).collect::<Vec<_>>()).unwrap();
        log.commit(&rows).unwrap();
    }
    let log = open(folder.path(), INDEXED);
    for (key, answer) in rows {
        assert_eq!(log.recall(&[key]).unwrap(), [Some(answer)]);
    }
    assert_eq!(log.recall(&[alike(250)]).unwrap(), [None]);
    assert!(holds(&log, 0..3000));
}

#[test]
fn many_segments_become_few_and_readers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { segments: 4, rows: 40, ..INDEXED };
    let mut readers = Vec::new();
    for n in 0..30 {
        let log = open(folder.path(), limits);
        assert!(holds(&log, 0..n * 2), "segment {n}");
        log.commit(&[row(n * 2)]).unwrap();
        log.commit(&[row(n * 2 + 1)]).unwrap();
        readers.push((log, n * 2 + 2));
        if n % 7 == 0 {
            // The writers end, so that what they wrote can be joined; some readers stay.
            readers.iter_mut().for_each(|(log, _)| log.state().own = None);
        }
    }
    readers.iter_mut().for_each(|(log, _)| log.state().own = None);
    let log = open(folder.path(), limits);
    assert!(holds(&log, 0..60));
    assert!(segment::files(folder.path(), "rows").unwrap().len() <= 5);
    let gone = folder.path().join("gone.index");
    fs::write(&gone, "of a segment that is gone").unwrap();
    drop(open(folder.path(), limits));
    assert!(!gone.exists());
    for (reader, known) in &readers {
        // Each knows what was there when it was opened, though the files are gone.
        assert!(holds(reader, 0..known - 2));
    }
}

#[test]
fn a_writer_parts_its_segment_and_forgets_its_keys() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path(), Limits { own: 100, ..INDEXED });
    for n in 0..50 {
        log.commit(&(n * 9..n * 9 + 9).map(row).collect::<Vec<_>>()).unwrap();
        assert!(log.state().own.as_ref().is_none_or(|own| own.rows.len() < 100));
    }
    assert!(holds(&log, 0..450));
    assert!(holds(&open(folder.path(), INDEXED), 0..450));
}

#[test]
fn small_frames_are_joined_and_broken_ones_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = sealed(folder.path(), &(0..1200).map(|n| n..n + 1).collect::<Vec<_>>());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let log = open(folder.path(), LIMITS);
    assert!(holds(&log, 0..1199));
    assert_eq!(log.recall(&[key(1199)]).unwrap(), [None]);
    let joined = segment::files(folder.path(), "rows").unwrap();
    assert!(joined.len() == 1 && joined[0] != path);
    assert!(fs::metadata(&joined[0]).unwrap().len() * 3 < bytes.len() as u64);
}

#[test]
fn a_segment_may_come_from_another_store_under_any_name() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = sealed(one.path(), &[0..5, 5..10]);
    let folder = two.path().join("operator");
    sealed(&folder, &[10..15, 15..20]);
    fs::copy(&path, folder.join("pulled-7.rows")).unwrap();
    assert!(holds(&open(&folder, INDEXED), 0..20));
    let info = logs(two.path()).unwrap().remove(0);
    assert!(info.folder == folder && info.segments.len() == 2 && info.bytes > 0 && info.modified.is_some());
    // What is being written to stays.
    let log = open(&folder, INDEXED);
    log.commit(&[row(20)]).unwrap();
    assert!(drop_log(&folder).unwrap() > 0);
    assert!(holds(&log, 0..21), "a reader goes on");
    assert!(holds(&open(&folder, INDEXED), 20..21));
    assert_eq!(open(&folder, INDEXED).knows(&[key(3)]).unwrap(), [false]);
    drop(log);
    drop_log(&folder).unwrap();
    assert!(!folder.exists() && logs(two.path()).unwrap().is_empty());
}

#[test]
fn a_segment_that_was_cleared_away_before_it_was_locked_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                drop(open(folder.path(), Limits { segments: 1, ..INDEXED }));
            }
        });
        for n in 0..100 {
            open(folder.path(), LIMITS).commit(&[row(n)]).unwrap();
        }
        done.store(true, Relaxed);
        assert!(holds(&open(folder.path(), LIMITS), 0..100));
    });
}
