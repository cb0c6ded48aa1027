//! `GET /events`: what /status says, again and again, as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::IntervalStream;

/// The time between two events.
const EVERY: Duration = Duration::from_secs(1);
/// So many may listen at a time: each costs a /status every second.
const LISTENERS: usize = 16;

/// How many may still begin to listen. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(LISTENERS)))
    }
}

impl Room {
    /// A stream of events for one more listener, each with what `status` returns then as JSON; 503 where there are too many.
    pub(super) fn events(&self, status: impl Fn() -> Value + Send + 'static) -> Response {
        let Ok(place) = self.0.clone().try_acquire_owned() else {
            let text = format!("{LISTENERS} listen already: close a page\n");
            return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
        };
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = IntervalStream::new(ticks).map(move |_| {
            // Given back when the listener has gone, and the stream with it.
            let _place = &place;
            Ok::<_, Infallible>(Event::default().data(status().to_string()))
        });
        Sse::new(events).into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test]
    async fn each_event_is_the_status_of_its_moment_and_places_come_back() {
        let room = Room::default();
        let mut all: Vec<Response> = (0..LISTENERS)
            .map(|number| room.events(move || serde_json::json!({ "n": number })))
            .collect();
        let one_more = || room.events(|| Value::Null).status();
        assert_eq!(one_more(), StatusCode::SERVICE_UNAVAILABLE);
        let last = all.pop().unwrap();
        let mut data = Body::into_data_stream(last.into_body());
        let event = data.next().await.unwrap().unwrap();
        assert_eq!(&event[..], b"data: {\"n\":15}\n\n");
        drop(data);
        assert_eq!(one_more(), StatusCode::OK);
    }
}
