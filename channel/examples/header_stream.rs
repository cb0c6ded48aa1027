//! Reads the headers that an interceptor returns, as a copier does.
//!
//!     cargo run -p millrace-channel --example header_stream -- 127.0.0.1:36524 198.18.1.1:4000 198.18.2.20:80
//!
//! It announces one flow, from a client's address to a target, and prints the header of each response to it. The
//! interceptor must run with `--insecure`. For ever, until Ctrl-C.

#![allow(clippy::print_stdout, unused_crate_dependencies)]

use millrace_channel::link::{self, LinkConfig};
use millrace_channel::transport::Security;
use millrace_notation::address::DefaultPort;
use millrace_proto::{FlowRecord, HeaderRecords};
use millrace_routes::Batch;
use millrace_routes::copier::{LinkEvent, Uplink};
use tokio::sync::mpsc::unbounded_channel;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [interceptor, client, target] = words.as_slice() else {
        return Err("give an interceptor, a client's address and port, and a target's".into());
    };
    let address = DefaultPort(36_524).parse_list(interceptor)?.remove(0);
    let config = LinkConfig::new(address, Security::Insecure, "an example");
    let (events, mut heard) = unbounded_channel();
    // The link connects, and connects again, by itself.
    let link = link::spawn(config, &tokio::runtime::Handle::current(), move |event| {
        let _ = events.send(event);
    });
    while let Some(event) = heard.recv().await {
        match event {
            LinkEvent::Up { epoch, .. } => {
                // All that this copier owns, anew on each connection: here one flow.
                let mut flows = Batch::new();
                let (client, target) = (client.parse()?, target.parse()?);
                flows.push_flow(&FlowRecord {
                    id: 1,
                    target,
                    client,
                    with_payload: false,
                })?;
                link.resync_begin(epoch)?;
                link.announce(epoch, flows.take().unwrap_or_default())?;
                link.resync_end(epoch)?;
            }
            LinkEvent::Headers { bytes, .. } => {
                for response in HeaderRecords::new(&bytes) {
                    println!("{:?}", response?.header);
                }
            }
            other => println!("{other:?}"),
        }
    }
    Ok(())
}
