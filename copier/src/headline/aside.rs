//! What takes time to find out: a thread of its own does, and what it found last is told meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// It is looked again after so long, where it matters.
const AGAIN: Duration = Duration::from_secs(60);

/// Something that is found out aside.
#[derive(Clone)]
pub(super) struct Aside<T>(Arc<Mutex<Found<T>>>);

struct Found<T> {
    /// What was found, and when.
    last: Option<(Instant, Option<T>)>,
    /// A thread is finding it out.
    under_way: bool,
}

impl<T> Default for Aside<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Found {
            last: None,
            under_way: false,
        })))
    }
}

impl<T: Clone + Send + 'static> Aside<T> {
    /// What was found last; `look` finds it out on a thread of this name if that is long ago.
    pub(super) fn known(
        &self,
        name: &str,
        look: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Option<T> {
        let mut found = self.0.lock();
        let fresh = |(at, _): &(Instant, _)| at.elapsed() < AGAIN;
        if !found.last.as_ref().is_some_and(fresh) && !found.under_way {
            let shared = self.0.clone();
            let find = move || {
                let news = look();
                let mut found = shared.lock();
                found.last = Some((Instant::now(), news));
                found.under_way = false;
            };
            let thread = std::thread::Builder::new().name(name.to_owned());
            // Without a thread it is tried again later.
            found.under_way = thread.spawn(find).is_ok();
        }
        found.last.as_ref().and_then(|(_, known)| known.clone())
    }
}
