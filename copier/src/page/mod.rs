//! The page at `/` of the admin port: how things stand, for a browser. One document without outside resources, which
//! follows /events and asks for what it lacks of the history.
//!
//! - `history`: what happened since the start, in bounded memory.
//! - `page.html`, `page.css`, `page.js`: the page; at the first request they become one document.

mod history;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::extract::Query;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use tokio::time::{MissedTickBehavior, interval};

use self::history::History;
use crate::report::Shared;

/// How often a report is taken in.
const EVERY: Duration = Duration::from_secs(1);

/// What is kept for the page. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Page(Arc<Mutex<History>>);

/// What a reader lacks: see [`History::excerpt`].
#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default = "ten_minutes")]
    span: f64,
    #[serde(default)]
    after: f64,
}

fn ten_minutes() -> f64 {
    600.0
}

impl Page {
    /// Takes the reports in as they come, for as long as this runs.
    pub async fn follow(self, reports: Shared) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.0.lock().sample(&reports.report());
        }
    }

    /// The page, and its history: `GET /history?span=SECONDS&after=SECONDS`.
    pub fn router(self) -> Router {
        let history = move |Query(wanted): Query<Wanted>| async move {
            axum::Json(self.0.lock().excerpt(wanted.span, wanted.after))
        };
        Router::new()
            .route("/", get(|| async { DOCUMENT.response() }))
            .route("/history", get(history))
    }
}

/// The page as one document, and the policy under which a browser runs its own script and style and nothing else.
struct Document {
    html: String,
    policy: String,
}

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    let (style, script) = (include_str!("page.css"), include_str!("page.js"));
    Document {
        html: include_str!("page.html")
            .replace("/* page.css */", style)
            .replace("/* page.js */", script),
        // CSP Level 3, section 2.3.1: hashes of what stands between the tags.
        policy: format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(style),
            source(script)
        ),
    }
});

fn source(text: &str) -> String {
    format!(
        "sha256-{}",
        STANDARD.encode(digest(&SHA256, text.as_bytes()))
    )
}

impl Document {
    fn response(&self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, &self.policy[..]),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-store"),
        ];
        (headers, self.html.clone()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_document_that_runs_nothing_but_its_own() {
        let Document { html, policy } = &*DOCUMENT;
        let between = |open: &str, close: &str| {
            let (_, rest) = html.split_once(open).unwrap();
            rest.split_once(close).unwrap().0
        };
        let style = between("<style>", "</style>");
        let script = between("<script type=\"module\">", "</script>");
        for text in [style, script] {
            assert!(text.len() > 1000, "{text}");
            assert!(policy.contains(&format!("'{}'", source(text))));
        }
        assert!(policy.starts_with("default-src 'none'; "));
        let namespace = "http://www.w3.org/2000/svg";
        let html = html.replace(namespace, "");
        for outside in [
            "http:", "https:", "src=", "@import", "url(", "style=\"", "onclick",
        ] {
            assert!(!html.contains(outside), "{outside}");
        }
        assert!(!script.contains("innerHTML"), "peers' words are text");
    }

    #[test]
    fn each_element_that_the_script_fills_is_there_once() {
        let Document { html, .. } = &*DOCUMENT;
        let named = |mark: &str| -> Vec<&str> {
            let places = html.match_indices(mark).map(|(at, _)| at + mark.len());
            places
                .filter_map(|at| html.get(at..)?.split('"').next())
                .collect()
        };
        let ids = named(" id=\"");
        let filled = named("byId(\"");
        assert!(filled.len() > 20, "{filled:?}");
        for id in &ids {
            assert_eq!(ids.iter().filter(|it| *it == id).count(), 1, "{id}");
        }
        for id in filled {
            assert!(ids.contains(&id), "{id}");
        }
    }
}
