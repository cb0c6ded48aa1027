//! The log of a test that runs on one thread.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Buffer {
    type Writer = Buffer;

    fn make_writer(&'a self) -> Buffer {
        self.clone()
    }
}

/// What this thread logs from now on.
pub(crate) struct Lines {
    buffer: Buffer,
    _guard: DefaultGuard,
}

impl Lines {
    pub(crate) fn capture() -> Self {
        let buffer = Buffer::default();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(buffer.clone())
            .finish();
        Lines {
            buffer,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    fn all(&self) -> Vec<String> {
        let bytes = self.buffer.0.lock().unwrap();
        String::from_utf8_lossy(&bytes)
            .lines()
            .map(str::to_owned)
            .collect()
    }

    /// The lines that hold `text`, once there are some.
    pub(crate) async fn with(&self, text: &str) -> Vec<String> {
        for _ in 0..500 {
            let lines: Vec<_> = self
                .all()
                .into_iter()
                .filter(|it| it.contains(text))
                .collect();
            if !lines.is_empty() {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no line with '{text}': {:#?}", self.all());
    }

    /// The one line about a refusal since the last call.
    pub(crate) async fn one(&self) -> String {
        let lines = self.with(" refused: ").await;
        assert_eq!(lines.len(), 1, "{lines:#?}");
        self.buffer.0.lock().unwrap().clear();
        lines.into_iter().next().unwrap()
    }
}
