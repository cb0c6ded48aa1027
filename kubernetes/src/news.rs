//! A watch that begins anew, with a list, whenever it failed.

use std::fmt::Debug;
use std::pin::Pin;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use kube::runtime::watcher::{Config, DefaultBackoff, Error, Event, watcher};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use crate::access::{Access, causes};
use crate::standing::Doubt;

/// The API is to end each watch after this long, in seconds; it goes on where it ended. So silence that lasts longer shows
/// that the connection is broken: [`crate::access::SILENCE`].
const WATCH: u32 = 120;

type Events<K> = Pin<Box<dyn Stream<Item = Result<Event<K>, Error>> + Send>>;

/// What the API says of some objects, from now on.
pub(crate) struct News<K> {
    access: Access,
    api: Box<dyn Fn(Client) -> Api<K> + Send>,
    wanted: Config,
    /// None after a failure.
    stream: Option<Events<K>>,
    pauses: DefaultBackoff,
    /// When it is asked again after a failure.
    again_at: Instant,
}

impl<K> News<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// What it says of those objects that are wanted. Nothing is sent yet.
    pub(crate) fn of(
        access: Access,
        api: impl Fn(Client) -> Api<K> + Send + 'static,
        wanted: Config,
    ) -> Self {
        Self {
            access,
            api: Box::new(api),
            wanted: wanted.timeout(WATCH),
            stream: None,
            pauses: DefaultBackoff::default(),
            again_at: Instant::now(),
        }
    }

    /// The next of it. After a failure, of which this says why, it is asked again with a pause that grows: with a client of
    /// its own, since certificates may have been renewed, and first for all there is, so that what comes next always shows
    /// that the API answers. (A watch that just goes on says nothing until something changes.) May be dropped at any time.
    pub(crate) async fn next(&mut self) -> Result<Event<K>, Doubt> {
        loop {
            if let Some(stream) = &mut self.stream {
                match stream.next().await {
                    Some(Ok(event)) => return Ok(event),
                    Some(Err(error)) => return Err(self.failed(doubt(&error))),
                    None => self.stream = None,
                }
            }
            sleep_until(self.again_at).await;
            match self.access.client() {
                Ok(client) => {
                    let api = (self.api)(client);
                    self.stream = Some(watcher(api, self.wanted.clone()).boxed());
                }
                Err(reason) => return Err(self.failed(Doubt::Unanswered(reason))),
            }
        }
    }

    fn failed(&mut self, why: Doubt) -> Doubt {
        self.stream = None;
        self.again_at = Instant::now() + self.pauses.next().unwrap_or(Duration::from_secs(30));
        why
    }
}

/// What a failure means.
fn doubt(error: &Error) -> Doubt {
    let reason = causes(error);
    let code = match error {
        Error::InitialListFailed(error)
        | Error::WatchStartFailed(error)
        | Error::WatchFailed(error) => match error {
            kube::Error::Api(status) => status.code,
            _ => 0,
        },
        Error::WatchError(status) => status.code,
        Error::NoResourceVersion => 0,
    };
    match code {
        401 | 403 => Doubt::Refused(reason),
        _ => Doubt::Unanswered(reason),
    }
}
