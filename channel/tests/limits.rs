//! What one peer may cost: bytes written to the port by hand, and the bound that stops them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unused_crate_dependencies
)]

use std::time::Duration;

use millrace_channel::server::{self, AttachEvents, ServerConfig, ServerHandle};
use millrace_channel::transport::Security;
use millrace_daemon::listen;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// RFC 9113, section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

fn serve(change: impl FnOnce(&mut ServerConfig)) -> (ServerHandle, AttachEvents) {
    let mut config = ServerConfig::new(Security::Insecure, "rs1");
    change(&mut config);
    let listener = listen::bind("127.0.0.1:0".parse().unwrap(), "-p").unwrap();
    server::spawn(config, listener, &Handle::current(), || {}).unwrap()
}

/// RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `POST http /`, from HPACK's static table.
const REQUEST: &[u8] = &[0x83, 0x86, 0x84];

async fn connect(server: &ServerHandle) -> TcpStream {
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    stream
}

/// Writes all and reads until the server says GOAWAY or closes; gives its error code.
async fn until_ended(mut stream: TcpStream, bytes: Vec<u8>) -> Option<u32> {
    let (mut reader, mut writer) = stream.split();
    let write = async {
        // The server may close in the middle of it.
        let _ = writer.write_all(&bytes).await;
        std::future::pending::<()>().await;
    };
    let read = async {
        loop {
            let mut header = [0; 9];
            reader.read_exact(&mut header).await.ok()?;
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; length as usize];
            reader.read_exact(&mut payload).await.ok()?;
            if header[3] == GOAWAY {
                return Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
            }
        }
    };
    tokio::select! {
        code = timeout(PATIENCE, read) => code.expect("the server lets it go on"),
        () = write => unreachable!(),
    }
}

#[tokio::test]
async fn streams_opened_and_reset_without_end_end_the_connection() {
    let (server, _events) = serve(|_| {});
    let stream = connect(&server).await;
    let mut bytes = Vec::new();
    for n in 0..20_000u32 {
        let id = 2 * n + 1;
        bytes.extend(frame(HEADERS, END_HEADERS, id, REQUEST));
        bytes.extend(frame(RST_STREAM, 0, id, &8u32.to_be_bytes()));
    }
    assert_eq!(until_ended(stream, bytes).await, Some(ENHANCE_YOUR_CALM));
    assert_eq!(server.status().attached, 0);
}

#[tokio::test]
async fn headers_without_end_end_the_connection() {
    let (server, _events) = serve(|_| {});
    let stream = connect(&server).await;
    // CONTINUATION flood (CVE-2024-27316): 64 MB of one header block.
    let mut bytes = frame(HEADERS, 0, 1, REQUEST);
    let literal = {
        let mut block = vec![0x00, 1, b'a', 0x7f, 0x81, 0x7e];
        block.resize(16_000, b'x');
        block
    };
    for _ in 0..4_000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &literal));
    }
    // Ended, whatever the code.
    let code = until_ended(stream, bytes).await;
    assert_ne!(code, Some(0), "a peaceful end");
    assert_eq!(server.status().attached, 0);
}

#[tokio::test]
async fn a_flood_of_pings_without_reading_does_not_grow_here() {
    let (server, _events) = serve(|_| {});
    let mut stream = connect(&server).await;
    // Until the server stops reading, because its answers are not read.
    let ping = frame(PING, 0, 0, &[7; 8]).repeat(1000);
    let mut sent = 0usize;
    while sent < 256 << 20 {
        match timeout(Duration::from_millis(500), stream.write_all(&ping)).await {
            Ok(Ok(())) => sent += ping.len(),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    assert!(sent < 128 << 20, "{sent} bytes of pings were swallowed");
}

#[tokio::test]
async fn one_address_gets_half_of_the_connections() {
    let (server, _events) = serve(|config| config.max_connections = 8);
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&server).await;
        stream.read_u8().await.expect("served");
        open.push(stream);
    }
    let mut fifth = connect(&server).await;
    let said = timeout(PATIENCE, fifth.read_u8()).await.unwrap();
    assert!(said.is_err(), "{said:?}");
    assert_eq!(server.status().handshakes.refused["too_many"], 1);
    // The place of one that ended is free again.
    open.pop();
    for _ in 0..500 {
        let mut again = connect(&server).await;
        if timeout(PATIENCE, again.read_u8()).await.unwrap().is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the place was not given back");
}
