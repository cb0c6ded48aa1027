//! The intensity on the admin port: `GET /intensity`, `POST /intensity`, `POST /pause`,
//! `POST /resume`, `POST /stop`.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use millrace_fleet::drain::DrainTrigger;
use serde::Deserialize;

use super::browser::refuse_foreign_pages;
use super::command::{Command, Commands};
use crate::shard::Shared;

/// A body is a number or a ramp.
const MAX_BODY: usize = 4096;

/// `{"intensity": 2.5}` or `{"ramp": "10%..100%/5m"}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    intensity: Option<f64>,
    ramp: Option<String>,
}

/// The routes. The admin port is on a loopback address unless the operator opens it: who reaches it
/// may use them.
pub fn routes(shared: Shared, commands: Commands, drain: DrainTrigger) -> Router {
    let (set, pause, resume) = (commands.clone(), commands.clone(), commands);
    Router::new()
        .route(
            "/intensity",
            get(move || async move { axum::Json(shared.report().intensity) }).post(
                move |body: String| async move {
                    match wish(&body) {
                        Ok(command) => accept(&set, command),
                        Err(message) => (StatusCode::BAD_REQUEST, message + "\n").into_response(),
                    }
                },
            ),
        )
        .route(
            "/pause",
            post(move || async move { accept(&pause, Command::Pause) }),
        )
        .route(
            "/resume",
            post(move || async move { accept(&resume, Command::Resume) }),
        )
        .route(
            "/stop",
            post(move || async move {
                if drain.begin() {
                    tracing::info!("told to stop on the admin port");
                    "draining: no new sessions, open ones finish\n"
                } else {
                    "already draining: no new sessions, open ones finish\n"
                }
            }),
        )
        .layer(axum::middleware::from_fn(refuse_foreign_pages))
        .layer(DefaultBodyLimit::max(MAX_BODY))
}

fn accept(commands: &Commands, command: Command) -> Response {
    if commands.push(command) {
        return (StatusCode::ACCEPTED, "accepted\n").into_response();
    }
    let text = "too many commands at once: try again\n";
    (StatusCode::TOO_MANY_REQUESTS, text).into_response()
}

/// What a body asks for: a number, a percentage, or JSON.
fn wish(body: &str) -> Result<Command, String> {
    let body = body.trim();
    if !body.starts_with('{') {
        return body
            .parse()
            .map(Command::Set)
            .map_err(|error: millrace_engine::NotAnIntensity| error.to_string());
    }
    let wish: Wish = serde_json::from_str(body).map_err(|error| {
        format!("{error}; write {{\"intensity\": 2.5}} or {{\"ramp\": \"10%..100%/5m\"}}")
    })?;
    match (wish.intensity, wish.ramp) {
        (Some(number), None) => number
            .to_string()
            .parse()
            .map(Command::Set)
            .map_err(|error: millrace_engine::NotAnIntensity| error.to_string()),
        (None, Some(ramp)) => ramp
            .parse()
            .map(Command::Follow)
            .map_err(|error: crate::ramp::RampError| format!("ramp: {error}")),
        (Some(_), Some(_)) | (None, None) => {
            Err("write either \"intensity\" or \"ramp\"".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_engine::Intensity;
    use millrace_fleet::drain::{self, Stage};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The status line and the body of the answer to a POST.
    async fn post(to: std::net::SocketAddr, path: &str, headers: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let text = format!("POST {path} HTTP/1.0\r\nHost: {to}\r\n{headers}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn stopping_twice_ends_nothing_at_once_and_pages_cannot_stop_anything() {
        let (trigger, watch) = drain::channel();
        let commands = Commands::default();
        let routes = routes(Shared::default(), commands.clone(), trigger);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, routes).await });
        for path in ["/stop", "/pause"] {
            let answer = post(to, path, "Origin: http://page.example\r\n").await;
            assert!(answer.contains(" 403 "), "{answer}");
        }
        assert_eq!((watch.stage(), commands.pop()), (Stage::Running, None));
        let answer = post(to, "/stop", "").await;
        assert!(answer.contains("\ndraining"), "{answer}");
        let answer = post(to, "/stop", "").await;
        assert!(answer.contains("already draining"), "{answer}");
        assert_eq!(watch.stage(), Stage::Draining, "what is open finishes");
        server.abort();
    }

    #[test]
    fn a_body_is_a_number_or_json() {
        for body in ["0.2", " 20%\n", "{\"intensity\": 0.2}"] {
            assert_eq!(
                wish(body),
                Ok(Command::Set(Intensity::from_ratio(0.2))),
                "{body}"
            );
        }
        let ramp = wish("{\"ramp\": \"10%..100%/5m\"}");
        assert_eq!(ramp, Ok(Command::Follow("10%..100%/5m".parse().unwrap())));
        for body in [
            "",
            "fast",
            "-1",
            "{",
            "{}",
            "{\"intensity\": -1}",
            "{\"intensity\": 1, \"ramp\": \"1\"}",
            "{\"ramp\": \"x\"}",
            "{\"speed\": 1}",
        ] {
            assert!(wish(body).is_err(), "{body}");
        }
    }
}
