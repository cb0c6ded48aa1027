//! A recording of 2 GB is replayed in constant memory.
//!
//! `make large` runs this. It needs 2 GB in the directory for temporary files, or in
//! MILLRACE_LARGE; MILLRACE_LARGE_MB makes it smaller.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millrace_integration::{binary, can_run, number};
use millrace_lab::Lab;

const SINK: u16 = 9999;
/// Payload of a segment.
const SEGMENT: usize = 1448;
/// Segments of a session.
const SEGMENTS: usize = 200;
/// Sessions that are interleaved.
const AT_ONCE: u16 = 50;
/// Memory for sessions, in MB (`-m`): what the process may take besides is its own.
const MEMORY_MB: u64 = 64;
const BESIDES_MB: u64 = 120;

#[test]
#[ignore = "takes minutes and 2 GB: make large"]
fn two_gigabytes_are_replayed_in_constant_memory() {
    if !can_run() {
        return;
    }
    let directory =
        std::env::var_os("MILLRACE_LARGE").map_or_else(std::env::temp_dir, PathBuf::from);
    let megabytes = std::env::var("MILLRACE_LARGE_MB").map_or(2048, |mb| mb.parse().unwrap());
    let path = directory.join(format!("millrace-large-{}.pcap", std::process::id()));
    let bytes = write(&path, megabytes << 20);
    let file = Removed(path);

    let lab = Lab::new().unwrap();
    let host = lab.host("alone").unwrap();
    host.ip(&["link set lo up".to_owned()]).unwrap();
    let listener = host
        .enter(|| TcpListener::bind(("127.0.0.1", SINK)))
        .unwrap()
        .unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 20];
                while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
            });
        }
    });

    let name = file.0.display().to_string();
    let begun = Instant::now();
    host.check(binary("millrace-copier"), &["inspect", &name])
        .unwrap();
    let reading = begun.elapsed();

    let service = format!("198.18.2.10:80-127.0.0.1:{SINK}");
    let memory = MEMORY_MB.to_string();
    let report = host.file("report.json");
    let report_name = report.display().to_string();
    let arguments = [
        "-i",
        &name,
        "-x",
        &service,
        "--local",
        "--asap",
        "-m",
        &memory,
        "--report",
        &report_name,
    ];
    let begun = Instant::now();
    let log = host.file("large.log");
    let mut copier = host
        .spawn(binary("millrace-copier"), &arguments, &[], &log)
        .unwrap();
    let mut most = 0;
    while copier.is_running() {
        most = most.max(copier.resident_bytes().unwrap_or(0));
        std::thread::sleep(Duration::from_millis(50));
    }
    let replaying = begun.elapsed();
    let status = copier.wait(Duration::from_secs(5)).unwrap();
    assert!(status.success(), "{status}: {}", copier.log());
    let report: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    assert_eq!(number(&report, "/bytes/delivered"), bytes, "{report:#}");
    let ratio = replaying.as_secs_f64() / reading.as_secs_f64();
    eprintln!(
        "{megabytes} MB: at most {} MB resident; replayed in {ratio:.2} times the time that \
         inspecting it takes",
        most >> 20
    );
    assert!(
        most >> 20 < MEMORY_MB + BESIDES_MB,
        "{} MB resident",
        most >> 20
    );
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Writes a recording of about so many bytes: uploads over interleaved connections, with the live
/// server's acknowledgements. Gives the bytes of clients in it.
fn write(path: &Path, size: u64) -> u64 {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut header = Vec::new();
    for number in [0xa1b2_3c4du32, 0x0004_0002, 0, 0, 65_535, 101] {
        header.extend(number.to_le_bytes());
    }
    out.write_all(&header).unwrap();
    let payload = [0x5a; SEGMENT];
    let (mut written, mut bytes, mut micros) = (24, 0, 0u64);
    let mut group = 0u32;
    while written < size {
        for step in 0..SEGMENTS + 4 {
            for session in 0..AT_ONCE {
                micros += 1;
                // Every group of sessions has a client address of its own.
                let ends = ([198, 18, (group >> 8) as u8, group as u8], 20_000 + session);
                let sent = 1 + (step.saturating_sub(2).min(SEGMENTS) * SEGMENT) as u32;
                let (seq, ack, flags, from_client, data) = match step {
                    0 => (0, 0, 0x02, true, &[][..]),
                    1 => (0, 1, 0x12, false, &[][..]),
                    step if step < SEGMENTS + 2 => (sent, 1, 0x18, true, &payload[..]),
                    step if step == SEGMENTS + 2 => (sent, 1, 0x11, true, &[][..]),
                    _ => (1, sent + 1, 0x11, false, &[][..]),
                };
                bytes += data.len() as u64;
                written += packet(&mut out, micros, ends, from_client, (seq, ack, flags), data);
            }
        }
        group += 1;
    }
    out.flush().unwrap();
    bytes
}

/// Writes one packet; gives its length in the file.
fn packet(
    out: &mut impl Write,
    micros: u64,
    (client, port): ([u8; 4], u16),
    from_client: bool,
    (seq, ack, flags): (u32, u32, u8),
    data: &[u8],
) -> u64 {
    let server = [198, 18, 2, 10];
    let (from, to, ports) = match from_client {
        true => (client, server, [port, 80]),
        false => (server, client, [80, port]),
    };
    let length = 40 + data.len();
    let mut head = Vec::with_capacity(56);
    head.extend(((micros / 1_000_000) as u32).to_le_bytes());
    head.extend(((micros % 1_000_000 * 1000) as u32).to_le_bytes());
    head.extend((length as u32).to_le_bytes());
    head.extend((length as u32).to_le_bytes());
    let [high, low] = (length as u16).to_be_bytes();
    head.extend([0x45, 0, high, low, 0, 1, 0, 0, 64, 6, 0, 0]);
    head.extend(from);
    head.extend(to);
    head.extend(ports[0].to_be_bytes());
    head.extend(ports[1].to_be_bytes());
    head.extend(seq.to_be_bytes());
    head.extend(ack.to_be_bytes());
    head.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out.write_all(&head).unwrap();
    out.write_all(data).unwrap();
    (head.len() + data.len()) as u64
}
