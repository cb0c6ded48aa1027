//! Two services at once from the same client port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::client::{Client, Trouble};
use super::http::{Outcome, get};
use super::summary::Tally;
use super::{Kind, Load};

/// What is asked of each; different, so that mixed-up answers show.
const FIRST: &str = "/bytes/1000";
const SECOND: &str = "/bytes/2000";

/// Two connections that differ in the service alone, with their requests interleaved.
pub(super) async fn pair(load: Arc<Load>, number: u64, mut tally: Tally) -> Outcome {
    let outcome = async {
        let Kind::SamePort {
            other, first_port, ..
        } = load.kind
        else {
            return Ok(());
        };
        let any = if load.to.is_ipv4() {
            IpAddr::from(Ipv4Addr::UNSPECIFIED)
        } else {
            Ipv6Addr::UNSPECIFIED.into()
        };
        let port = u16::try_from(number)
            .ok()
            .and_then(|number| first_port.checked_add(number))
            .ok_or_else(|| {
                Trouble::Wrong("there are no more ports for so many pairs".to_owned())
            })?;
        let from = SocketAddr::new(load.source(number).unwrap_or(any), port);
        let mut first = Client::connect(Some(from), load.to).await?;
        let mut second = Client::connect(Some(from), other).await?;
        for turn in 0..2 {
            tally.request(get(&mut first, FIRST, number, turn, false).await?);
            tally.request(get(&mut second, SECOND, number, turn, false).await?);
        }
        first.close().await?;
        second.close().await
    }
    .await;
    (tally, outcome)
}
