//! Compares what two recorders received.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::error::{Doing, Error, Result};
use crate::recorder::{End, Protocol, Record};

/// Examples that a difference names on each side; a thousand would tell no more.
const EXAMPLES: usize = 5;

/// The records of one recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordedStreams {
    records: Vec<Record>,
}

/// What makes two streams the same, wherever and whenever they were received.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stream {
    /// What was spoken.
    pub proto: Protocol,
    /// Bytes received.
    pub bytes: u64,
    /// Their hash.
    pub hash: String,
    /// Complete requests in them.
    pub requests: u64,
}

/// Streams of one side that the other has not, each as often as it has it more often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Received by the first and not by the second.
    pub missing: u64,
    /// Received by the second and not by the first.
    pub extra: u64,
    /// The first few that are missing.
    pub missing_examples: Vec<Stream>,
    /// The first few that are extra.
    pub extra_examples: Vec<Stream>,
}

impl RecordedStreams {
    /// Adds the records of another recorder.
    pub fn extend(&mut self, other: &Self) {
        self.records.extend_from_slice(&other.records);
    }

    /// Reads a recorder's file.
    ///
    /// # Errors
    /// When it cannot be read, or a line of it is not a record.
    pub fn load(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).doing(|| format!("reading {}", file.display()))?;
        let mut records = Vec::new();
        for (number, line) in text.lines().enumerate() {
            // Without its newline, the last line may be one that is being written.
            let unfinished = !text.ends_with('\n') && text.lines().count() == number + 1;
            if unfinished {
                break;
            }
            records.push(
                serde_json::from_str(line).map_err(|error| Error::Malformed {
                    what: format!("{}, line {}", file.display(), number + 1),
                    detail: error.to_string(),
                })?,
            );
        }
        Ok(Self { records })
    }

    /// All records, in the order in which connections ended.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// How many connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes received in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.bytes).sum()
    }

    /// Complete requests in all.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.records.iter().map(|record| record.requests).sum()
    }

    /// How many connections ended so.
    #[must_use]
    pub fn ended(&self, end: End) -> usize {
        self.records
            .iter()
            .filter(|record| record.end == end)
            .count()
    }

    /// The same without connections that brought nothing, such as probes of a port.
    #[must_use]
    pub fn without_empty(mut self) -> Self {
        self.records.retain(|record| record.bytes > 0);
        self
    }

    /// Only those whose client satisfies a condition.
    #[must_use]
    pub fn filtered(mut self, wanted: impl FnMut(&Record) -> bool) -> Self {
        self.records.retain(wanted);
        self
    }

    /// Compares two recorders' streams as multisets: `self` says what should be, `other` what is.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Difference {
        self.compare_times(other, 1)
    }

    /// As [`Self::compare`], where each stream should be there `times` times: with that many replicas.
    #[must_use]
    pub fn compare_times(&self, other: &Self, times: i64) -> Difference {
        let mut balance: BTreeMap<Stream, i64> = BTreeMap::new();
        for record in &self.records {
            *balance.entry(record.into()).or_default() += times;
        }
        for record in &other.records {
            *balance.entry(record.into()).or_default() -= 1;
        }
        let mut difference = Difference::default();
        for (stream, count) in balance {
            let (total, examples) = if count > 0 {
                (&mut difference.missing, &mut difference.missing_examples)
            } else {
                (&mut difference.extra, &mut difference.extra_examples)
            };
            *total += count.unsigned_abs();
            if count != 0 && examples.len() < EXAMPLES {
                examples.push(stream);
            }
        }
        difference
    }
}

impl From<&Record> for Stream {
    fn from(record: &Record) -> Self {
        Self {
            proto: record.proto,
            bytes: record.bytes,
            hash: record.hash.clone(),
            requests: record.requests,
        }
    }
}

impl Difference {
    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.missing == 0 && self.extra == 0
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_none() {
            return f.write_str("no difference");
        }
        write!(f, "{} streams missing, {} extra", self.missing, self.extra)?;
        for (what, examples) in [
            ("missing", &self.missing_examples),
            ("extra", &self.extra_examples),
        ] {
            for Stream {
                proto,
                bytes,
                hash,
                requests,
            } in examples
            {
                write!(
                    f,
                    "\n  {what}: {proto}, {bytes} bytes, {requests} requests, hash {hash}"
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(hash: &str, bytes: u64) -> Record {
        Record {
            proto: Protocol::Http,
            port: 80,
            peer: ([198, 18, 1, 10], 1024).into(),
            bytes,
            hash: hash.to_owned(),
            end: End::Fin,
            requests: 1,
        }
    }

    fn streams(hashes: &[&str]) -> RecordedStreams {
        RecordedStreams {
            records: hashes.iter().map(|hash| record(hash, 10)).collect(),
        }
    }

    #[test]
    fn order_does_not_matter_but_number_does() {
        let live = streams(&["a", "b", "b"]);
        assert!(live.compare(&streams(&["b", "a", "b"])).is_none());
        let difference = live.compare(&streams(&["b", "a", "a", "c"]));
        assert_eq!((difference.missing, difference.extra), (1, 2));
        assert_eq!(difference.missing_examples[0].hash, "b");
        assert!(
            difference
                .to_string()
                .contains("1 streams missing, 2 extra")
        );
    }

    #[test]
    fn replicas_are_counted_each() {
        let live = streams(&["a", "b"]);
        assert!(
            live.compare_times(&streams(&["a", "b", "b", "a"]), 2)
                .is_none()
        );
        assert_eq!(live.compare_times(&streams(&["a", "b", "a"]), 2).missing, 1);
    }

    #[test]
    fn a_file_is_read_up_to_a_line_that_is_being_written() {
        let file = std::env::temp_dir().join(format!("millrace-records-{}", std::process::id()));
        let line = serde_json::to_string(&record("a", 3)).unwrap();
        std::fs::write(&file, format!("{line}\n{line}\n{{\"proto\":\"ht")).unwrap();
        let loaded = RecordedStreams::load(&file).unwrap();
        assert_eq!((loaded.len(), loaded.bytes()), (2, 6));
        std::fs::write(&file, "nonsense\n").unwrap();
        assert!(RecordedStreams::load(&file).is_err());
        std::fs::remove_file(&file).unwrap();
    }
}
