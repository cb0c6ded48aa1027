//! Keeps web pages from giving commands: a browser on this host reaches a loopback address too, and
//! sends what any page tells it to.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// What is answered in place of doing it.
const REFUSAL: &str = "commands of web pages are refused: this one came from another origin; use \
                       `millrace-copier ctl`\n";

/// Lets a request through unless it is the command of a foreign page.
pub(super) async fn refuse_foreign_pages(request: Request, next: Next) -> Response {
    if request.method() != Method::GET && is_foreign(request.headers()) {
        return (StatusCode::FORBIDDEN, REFUSAL).into_response();
    }
    next.run(request).await
}

/// Whether a page of another origin sends this. Browsers name the origin with every request that is
/// not a GET (Fetch standard, 3.2); other programs name none.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let Some(origin) = text(header::ORIGIN) else {
        return false;
    };
    let host = text(header::HOST).unwrap_or("");
    let same = origin.strip_prefix("http://") == Some(host);
    // A name may have been made to lead here by whoever owns it (DNS rebinding).
    !(same && is_literal(host))
}

/// Whether a Host names an address, or `localhost`, with or without a port.
fn is_literal(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or(host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || host.parse::<SocketAddr>().is_ok() || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_are_told_from_programs() {
        for (host, origin, foreign) in [
            ("127.0.0.1:36530", None, false),
            ("live1.example:36530", None, false),
            ("127.0.0.1:36530", Some("http://127.0.0.1:36530"), false),
            ("[::1]:36530", Some("http://[::1]:36530"), false),
            ("localhost:36530", Some("http://localhost:36530"), false),
            ("127.0.0.1:36530", Some("http://page.example"), true),
            ("127.0.0.1:36530", Some("https://127.0.0.1:36530"), true),
            ("127.0.0.1:36530", Some("null"), true),
            ("127.0.0.1:36530", Some(""), true),
            (
                "page.example:36530",
                Some("http://page.example:36530"),
                true,
            ),
            (
                "127.0.0.1.page.example",
                Some("http://127.0.0.1.page.example"),
                true,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            assert_eq!(is_foreign(&headers), foreign, "{host} {origin:?}");
        }
    }
}
