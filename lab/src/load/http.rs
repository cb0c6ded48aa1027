//! The kinds of load that speak HTTP/1.1.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::{Client, Trouble};
use super::summary::Tally;
use super::{Kind, Load};
use crate::pattern::{self, Unique};

/// How much of an upload is made and sent at a time.
const CHUNK: usize = 64 << 10;
/// A body of an answer that is asked for by the way.
const SMALL: &str = "/bytes/100";

pub(super) type Outcome = (Tally, Result<(), Trouble>);

/// One `GET` with `Connection: close`, small or large.
pub(super) async fn one_request(load: Arc<Load>, number: u64, mut tally: Tally) -> Outcome {
    let outcome = async {
        let large;
        let path = match &load.kind {
            Kind::OneRequest { path, .. } => path,
            Kind::Download { size, .. } => {
                large = format!("/bytes/{size}");
                &large
            }
            Kind::KeepAlive { .. }
            | Kind::Upload { .. }
            | Kind::Resp { .. }
            | Kind::Greeting { .. }
            | Kind::Idle { .. }
            | Kind::SamePort { .. } => SMALL,
        };
        let mut client = load.connect(number).await?;
        tally.request(get(&mut client, path, number, 0, true).await?);
        client.closed_by_server().await?;
        client.close().await
    }
    .await;
    (tally, outcome)
}

/// One `GET` after the other until the time is up.
pub(super) async fn keep_alive(load: Arc<Load>, number: u64, mut tally: Tally) -> Outcome {
    let outcome = async {
        let Kind::KeepAlive {
            lasting,
            pause,
            path,
        } = &load.kind
        else {
            return Ok(());
        };
        let end = Instant::now() + *lasting;
        let mut client = load.connect(number).await?;
        let mut turn = 0;
        while Instant::now() < end {
            tally.request(get(&mut client, path, number, turn, false).await?);
            turn += 1;
            if !pause.is_zero() {
                sleep(*pause).await;
            }
        }
        client.close().await
    }
    .await;
    (tally, outcome)
}

/// One `PUT` of a body that is like no other.
pub(super) async fn upload(load: Arc<Load>, number: u64, mut tally: Tally) -> Outcome {
    let outcome = async {
        let Kind::Upload { size, .. } = &load.kind else {
            return Ok(());
        };
        let mut client = load.connect(number).await?;
        let start = Instant::now();
        let head = format!(
            "PUT /upload?n={number} HTTP/1.1\r\nHost: lab\r\nContent-Length: {size}\r\n\r\n"
        );
        client.send(head.as_bytes()).await?;
        let mut body = Unique::new(number);
        let mut chunk = vec![0; CHUNK];
        let mut left = *size;
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let part = chunk.get_mut(..length).unwrap_or_default();
            body.fill(part);
            client.send(part).await?;
            left -= length as u64;
        }
        answer(&mut client, "/upload").await?;
        tally.request(start.elapsed());
        client.close().await
    }
    .await;
    (tally, outcome)
}

/// A request, a silence, another request.
pub(super) async fn idle(load: Arc<Load>, number: u64, mut tally: Tally) -> Outcome {
    let outcome = async {
        let lasting = match &load.kind {
            Kind::Idle { lasting, .. } => *lasting,
            Kind::OneRequest { .. }
            | Kind::KeepAlive { .. }
            | Kind::Upload { .. }
            | Kind::Download { .. }
            | Kind::Resp { .. }
            | Kind::Greeting { .. }
            | Kind::SamePort { .. } => Duration::ZERO,
        };
        let mut client = load.connect(number).await?;
        tally.request(get(&mut client, SMALL, number, 0, false).await?);
        sleep(lasting).await;
        tally.request(get(&mut client, SMALL, number, 1, false).await?);
        client.close().await
    }
    .await;
    (tally, outcome)
}

/// Asks and checks the answer; returns how long that took. Session and turn make the request like no other.
pub(super) async fn get(
    client: &mut Client,
    path: &str,
    number: u64,
    turn: u64,
    close: bool,
) -> Result<Duration, Trouble> {
    let start = Instant::now();
    let connection = if close { "Connection: close\r\n" } else { "" };
    let request = format!("GET {path}?n={number}.{turn} HTTP/1.1\r\nHost: lab\r\n{connection}\r\n");
    client.send(request.as_bytes()).await?;
    answer(client, path).await?;
    Ok(start.elapsed())
}

/// Receives an answer to its end: status 200, and to `/bytes/N` exactly the N bytes that belong there.
async fn answer(client: &mut Client, path: &str) -> Result<(), Trouble> {
    let length = head(client).await?;
    let asked = path
        .strip_prefix("/bytes/")
        .and_then(|number| number.parse::<u64>().ok());
    if let Some(asked) = asked.filter(|asked| *asked != length) {
        return Err(Trouble::Wrong(format!(
            "{length} bytes in place of {asked}"
        )));
    }
    let mut done = 0;
    while done < length {
        if client.received().is_empty() {
            client.more().await?;
        }
        let most = usize::try_from(length - done).unwrap_or(usize::MAX);
        let received = client.received();
        let part = received.get(..most).unwrap_or(received);
        if asked.is_some() && !pattern::matches(done, part) {
            return Err(Trouble::Wrong(format!(
                "other bytes than asked for, from byte {done} on"
            )));
        }
        let taken = part.len();
        done += taken as u64;
        client.used(taken);
    }
    Ok(())
}

/// Receives the head of an answer; returns its Content-Length.
async fn head(client: &mut Client) -> Result<u64, Trouble> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let wrong = |what: &str| Trouble::Wrong(what.to_owned());
        match response.parse(client.received()) {
            Err(error) => return Err(Trouble::Wrong(format!("not HTTP ({error})"))),
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(length)) => {
                if response.code != Some(200) {
                    return Err(Trouble::Wrong(format!("status {:?}", response.code)));
                }
                let body = response
                    .headers
                    .iter()
                    .find(|header| header.name.eq_ignore_ascii_case("content-length"))
                    .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok())
                    .ok_or_else(|| wrong("no Content-Length"))?;
                client.used(length);
                return Ok(body);
            }
        }
        client.more().await?;
    }
}
