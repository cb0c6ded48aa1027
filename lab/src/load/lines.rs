//! The kinds of load that speak RESP, or wait for the server's greeting.

use std::sync::Arc;

use memchr::memchr;
use tokio::time::Instant;

use super::client::{Client, Trouble};
use super::http::Outcome;
use super::summary::Tally;
use super::{Kind, Load};

/// What clients of Redis log in with; the recording servers take any password.
pub const RESP_PASSWORD: &str = "of the lab";

/// Batches of commands, each sent as a whole before its answers are read.
pub(super) async fn resp(load: Arc<Load>, number: u64, mut tally: Tally) -> Outcome {
    let outcome = async {
        let Kind::Resp {
            batches, pipeline, ..
        } = load.kind
        else {
            return Ok(());
        };
        let mut client = load.connect(number).await?;
        let (password, len) = (RESP_PASSWORD, RESP_PASSWORD.len());
        let login = format!("*2\r\n$4\r\nAUTH\r\n${len}\r\n{password}\r\n");
        client.send(login.as_bytes()).await?;
        client.expect(b"+OK\r\n").await?;
        for batch in 0..batches {
            let mut commands = Vec::new();
            let mut expected = Vec::new();
            for place in 0..pipeline {
                let key = format!("k{number}.{batch}.{place}");
                let set = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n$1\r\nv\r\n", key.len());
                let (command, answer) = if place % 2 == 0 {
                    (set.as_str(), "+OK\r\n")
                } else {
                    ("*1\r\n$4\r\nPING\r\n", "+PONG\r\n")
                };
                commands.extend_from_slice(command.as_bytes());
                expected.extend_from_slice(answer.as_bytes());
            }
            let start = Instant::now();
            client.send(&commands).await?;
            client.expect(&expected).await?;
            let took = start.elapsed();
            for _ in 0..pipeline {
                tally.request(took);
            }
        }
        client.close().await
    }
    .await;
    (tally, outcome)
}

/// Waits for the greeting, sends lines one by one, and quits.
pub(super) async fn greeting(load: Arc<Load>, number: u64, mut tally: Tally) -> Outcome {
    let outcome = async {
        let Kind::Greeting { lines, .. } = load.kind else {
            return Ok(());
        };
        let mut client = load.connect(number).await?;
        line(&mut client, b"220 ").await?;
        for turn in 0..lines {
            let start = Instant::now();
            client
                .send(format!("NOOP {number}.{turn}\r\n").as_bytes())
                .await?;
            line(&mut client, b"250 ").await?;
            tally.request(start.elapsed());
        }
        client.send(b"QUIT\r\n").await?;
        line(&mut client, b"221 ").await?;
        client.closed_by_server().await?;
        client.close().await
    }
    .await;
    (tally, outcome)
}

/// Receives one line with this beginning.
async fn line(client: &mut Client, beginning: &[u8]) -> Result<(), Trouble> {
    loop {
        if let Some(end) = memchr(b'\n', client.received()) {
            let line = client.received().get(..end).unwrap_or_default();
            if !line.starts_with(beginning) {
                return Err(Trouble::Wrong(format!(
                    "'{}'",
                    String::from_utf8_lossy(line)
                )));
            }
            client.used(end + 1);
            return Ok(());
        }
        client.more().await?;
    }
}
