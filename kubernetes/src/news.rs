//! A watch that begins anew, with a list, whenever it failed.

use std::fmt::Debug;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use kube::Api;
use kube::runtime::watcher::{Config, DefaultBackoff, Error, Event, watcher};
use serde::de::DeserializeOwned;
use tokio::time::sleep;

use crate::access::causes;

/// The API is to end each watch after this long, in seconds; it goes on where it ended. So silence that lasts longer shows
/// that the connection is broken: [`crate::access::SILENCE`].
const WATCH: u32 = 60;

/// What the API says of some objects, from now on.
pub(crate) struct News<K> {
    api: Api<K>,
    wanted: Config,
    stream: Pin<Box<dyn Stream<Item = Result<Event<K>, Error>> + Send>>,
    failed: bool,
    pauses: DefaultBackoff,
}

impl<K> News<K>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    /// What it says of those objects that are wanted.
    pub(crate) fn of(api: Api<K>, wanted: Config) -> Self {
        let wanted = wanted.timeout(WATCH);
        Self {
            stream: watcher(api.clone(), wanted.clone()).boxed(),
            api,
            wanted,
            failed: false,
            pauses: DefaultBackoff::default(),
        }
    }

    /// The next of it. After a failure, of which this says why, it is asked again with a pause that grows: first for all
    /// there is, so that what comes next always shows that the API answers. (A watch that just goes on says nothing until
    /// something changes.)
    pub(crate) async fn next(&mut self) -> Result<Event<K>, String> {
        loop {
            if self.failed {
                // Set back only when that is over: whoever waits for this may look at something else meanwhile.
                sleep(self.pauses.next().unwrap_or_default()).await;
                self.stream = watcher(self.api.clone(), self.wanted.clone()).boxed();
                self.failed = false;
            }
            match self.stream.next().await {
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => {
                    self.failed = true;
                    return Err(causes(&error));
                }
                None => self.failed = true,
            }
        }
    }
}
