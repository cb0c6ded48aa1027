//! Writes the records to their file, on a thread of its own so that no connection waits for the disk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use super::Record;
use crate::error::{Doing, Error, Result};

/// Where connections put their records.
#[derive(Clone, Debug)]
pub(super) struct Records(Sender<Record>);

impl Records {
    pub(super) fn put(&self, record: Record) {
        // The thread is only gone when the file cannot be written, which `finish` reports.
        let _ = self.0.send(record);
    }
}

/// The thread and its file.
#[derive(Debug)]
pub(super) struct RecordWriter {
    records: Records,
    thread: JoinHandle<std::io::Result<()>>,
    file: PathBuf,
}

impl RecordWriter {
    pub(super) fn create(file: &Path) -> Result<Self> {
        let output = File::create(file).doing(|| format!("making {}", file.display()))?;
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || write(&receiver, output));
        Ok(Self {
            records: Records(sender),
            thread,
            file: file.to_owned(),
        })
    }

    pub(super) fn records(&self) -> Records {
        self.records.clone()
    }

    /// Waits until every connection has put its record, and all are in the file.
    pub(super) async fn finish(self) -> Result<()> {
        drop(self.records);
        let thread = self.thread;
        let ended = tokio::task::spawn_blocking(move || thread.join()).await;
        match ended {
            Ok(Ok(result)) => result.doing(|| format!("writing {}", self.file.display())),
            Ok(Err(_)) | Err(_) => Err(Error::Unsupported(
                "the thread that writes records panicked".to_owned(),
            )),
        }
    }
}

/// Flushes whenever nothing more waits, so that a reader of the file is never far behind.
fn write(records: &Receiver<Record>, output: File) -> std::io::Result<()> {
    let mut output = BufWriter::with_capacity(1 << 16, output);
    loop {
        let record = match records.try_recv() {
            Ok(record) => record,
            Err(TryRecvError::Disconnected) => return output.flush(),
            Err(TryRecvError::Empty) => {
                output.flush()?;
                match records.recv() {
                    Ok(record) => record,
                    Err(_) => return Ok(()),
                }
            }
        };
        serde_json::to_writer(&mut output, &record)?;
        output.write_all(b"\n")?;
    }
}
