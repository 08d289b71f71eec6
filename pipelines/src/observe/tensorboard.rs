//! Metrics as TensorBoard event files: `runs/<id>/tensorboard/<node>/events.out.tfevents.…`.
//!
//! The format, from TensorFlow's public sources:
//!
//! - A file is a sequence of records (`tensorflow/core/lib/io/record_writer.h`): length of the data as `u64`, masked CRC-32C of
//!   those 8 bytes as `u32`, the data, masked CRC-32C of the data as `u32`; all little-endian.
//! - A CRC is masked by rotating it right by 15 bits and adding `0xa282ead8` (`tensorflow/core/lib/hash/crc32c.h`).
//! - The data is a protobuf `Event` (`tensorflow/core/util/event.proto`): `wall_time` double = 1, `step` int64 = 2, `file_version` string = 3,
//!   `summary` = 5; the first event of a file has the version `brain.Event:2`.
//! - A `Summary` (`tensorflow/core/framework/summary.proto`) has `value` = 1, repeated, with `tag` string = 1 and `simple_value` float = 2.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use retort_cache::StoreError;
use retort_engine::EventKind;

use super::{Clock, Moment, View};

/// Writes a folder of event files, one a node that has metrics.
pub struct TensorBoard {
    folder: PathBuf,
    epoch: f64,
    files: BTreeMap<String, File>,
    trouble: Option<io::Error>,
}

impl TensorBoard {
    /// Writes below `folder`, which is made with the first value.
    pub fn new(folder: PathBuf, clock: &Clock) -> Self {
        TensorBoard { folder, epoch: clock.epoch(), files: BTreeMap::new(), trouble: None }
    }

    fn write(&mut self, node: &str, at: f64, step: u64, values: &[(String, f64)]) -> io::Result<()> {
        let time = self.epoch + at;
        let record = record(&scalars(time, step, values));
        if let Some(file) = self.files.get_mut(node) {
            return file.write_all(&record);
        }
        let mut file = self.create(node, time)?;
        file.write_all(&record)?;
        self.files.insert(node.to_string(), file);
        Ok(())
    }

    fn create(&self, node: &str, time: f64) -> io::Result<File> {
        let folder = self.folder.join(node);
        fs::create_dir_all(&folder)?;
        let name = format!("events.out.tfevents.{}.retort.{}", time as u64, std::process::id());
        let mut file = File::create(folder.join(name))?;
        file.write_all(&record(&version(time)))?;
        Ok(file)
    }
}

impl View for TensorBoard {
    fn see(&mut self, moment: &Moment<'_>) {
        if let EventKind::Metrics { step, values } = &moment.event.kind {
            // A picture that can't be drawn does not stop the run; the run's end says so.
            if let Err(error) = self.write(&moment.event.node, moment.at, *step, values) {
                self.trouble.get_or_insert(error);
            }
        }
    }

    fn trouble(&mut self) -> Option<StoreError> {
        self.trouble.take().map(StoreError::io("write to", &self.folder))
    }
}

/// Frames an event's bytes.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked(data).to_le_bytes());
    record
}

fn masked(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The event that every file begins with.
fn version(time: f64) -> Vec<u8> {
    let mut event = Vec::new();
    double(&mut event, 1, time);
    bytes(&mut event, 3, b"brain.Event:2");
    event
}

/// A step's values.
fn scalars(time: f64, step: u64, values: &[(String, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut one = Vec::new();
        bytes(&mut one, 1, tag.as_bytes());
        key(&mut one, 2, 5);
        one.extend_from_slice(&(*value as f32).to_le_bytes());
        bytes(&mut summary, 1, &one);
    }
    let mut event = Vec::new();
    double(&mut event, 1, time);
    key(&mut event, 2, 0);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    event
}

/// A field's number and wire type: 0 varint, 1 eight bytes, 2 length first, 5 four bytes.
fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, (field << 3) | wire);
}

fn double(out: &mut Vec<u8>, field: u64, value: f64) {
    key(out, field, 1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    key(out, field, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Seven bits a byte, the lowest first; the top bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_is_castagnoli_and_masked() {
        // RFC 3720, B.4: 32 bytes of zeros, and of ones.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        // 0x8a9136aa turned right by 15 bits is 0x6d551522.
        assert_eq!(masked(&[0; 32]), 0x6d55_1522_u32.wrapping_add(0xa282_ead8));
    }

    #[test]
    fn a_record_is_framed_by_length_and_checks() {
        let record = record(b"abc");
        assert_eq!(record[..8], 3_u64.to_le_bytes());
        assert_eq!(record[8..12], masked(&3_u64.to_le_bytes()).to_le_bytes());
        assert_eq!(&record[12..15], b"abc");
        assert_eq!(record[15..], masked(b"abc").to_le_bytes());
    }

    #[test]
    fn an_event_is_protobuf() {
        let event = scalars(1.0, 300, &[("loss".into(), 0.5)]);
        let expected = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f][..],
            &[0x10, 0xac, 0x02],
            &[0x2a, 13, 0x0a, 11, 0x0a, 4],
            b"loss",
            &[0x15, 0, 0, 0, 0x3f],
        ]
        .concat();
        assert_eq!(event, expected);
    }
}
