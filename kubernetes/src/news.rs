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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use k8s_openapi::api::core::v1::Pod;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// An API without pods that ends each watch as soon as it has begun. Counts what it is asked.
    async fn api_that_ends_all_watches(listener: TcpListener, asked: Arc<AtomicUsize>) {
        let list =
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}"#;
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let len = stream.read(&mut request).await.unwrap();
            asked.fetch_add(1, Ordering::Relaxed);
            let is_watch = String::from_utf8_lossy(&request[..len]).contains("watch=true");
            let body = if is_watch { "" } else { list };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_api_that_ends_each_watch_at_once_is_not_hurried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let access = Access::at(&format!("http://{}", listener.local_addr().unwrap()));
        let asked = Arc::new(AtomicUsize::new(0));
        let api = tokio::spawn(api_that_ends_all_watches(listener, asked.clone()));
        let mut news = News::<Pod>::of(access, Api::all, Config::default());
        let listen = async {
            loop {
                news.next().await.unwrap();
            }
        };
        timeout(Duration::from_secs(2), listen).await.unwrap_err();
        api.abort();
        let asked = asked.load(Ordering::Relaxed);
        assert!((2..=5).contains(&asked), "{asked} requests in 2 s");
    }
}
