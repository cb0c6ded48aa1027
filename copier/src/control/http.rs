//! The intensity over HTTP: `GET /intensity` shows it, on the admin port. `POST /intensity`, `POST /pause`, `POST /resume`
//! and `POST /stop` are commands, and taken on the Unix socket alone.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use millrace_daemon::drain::DrainTrigger;
use millrace_daemon::logging::Log;
use millrace_pilot::Command;
use millrace_replay::commands::Commands;
use serde::Deserialize;

use crate::report::Shared;

/// A body is a number or a ramp.
const MAX_BODY: usize = 4096;

/// `{"intensity": 2.5}` or `{"ramp": "10%..100%/5m"}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    intensity: Option<f64>,
    ramp: Option<String>,
}

/// What is answered to a command on the admin port: who reaches it may look, and nothing else.
const SHOWS_ONLY: &str = "the admin port only shows: give commands with `millrace-copier ctl`\n";

/// What the admin port shows.
pub fn shown(shared: Shared) -> Router {
    let refuse = || async { (StatusCode::METHOD_NOT_ALLOWED, SHOWS_ONLY) };
    Router::new()
        .route(
            "/intensity",
            get(move || async move { axum::Json(shared.report().intensity) }).post(refuse),
        )
        .route("/pause", post(refuse))
        .route("/resume", post(refuse))
        .route("/stop", post(refuse))
        .route("/log-level", post(refuse))
}

/// The commands.
pub fn commands(commands: Commands, drain: DrainTrigger, log: Log) -> Router {
    let (set, pause, resume) = (commands.clone(), commands.clone(), commands);
    Router::new()
        .route(
            "/intensity",
            post(move |body: String| async move {
                match wish(&body) {
                    Ok(command) => accept(&set, command),
                    Err(message) => (StatusCode::BAD_REQUEST, message + "\n").into_response(),
                }
            }),
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
                    tracing::info!("told to stop by `ctl`");
                    "draining: no new sessions, open ones finish\n"
                } else {
                    "already draining: no new sessions, open ones finish\n"
                }
            }),
        )
        .route(
            "/log-level",
            post(move |level: String| async move {
                match log.set_level(&level) {
                    Ok(()) => (StatusCode::OK, format!("log level: {}\n", level.trim())),
                    Err(error) => (StatusCode::BAD_REQUEST, error + "\n"),
                }
            }),
        )
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
            .map_err(|error: millrace_pilot::ramp::RampError| format!("ramp: {error}")),
        (Some(_), Some(_)) | (None, None) => {
            Err("write either \"intensity\" or \"ramp\"".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_capture::Waker;
    use millrace_daemon::drain::{self, Stage};
    use millrace_engine::Intensity;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// The answer to a POST on a new connection.
    async fn post(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, path: &str) -> String {
        let text = format!("POST {path} HTTP/1.0\r\nHost: x\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn commands_are_taken_on_the_socket_and_nowhere_else() {
        let (trigger, watch) = drain::channel();
        let queue = Commands::new(Waker::new().unwrap());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let admin = shown(Shared::default());
        tokio::spawn(async move { axum::serve(listener, admin).await });
        for path in ["/stop", "/pause", "/resume", "/intensity"] {
            let stream = tokio::net::TcpStream::connect(to).await.unwrap();
            let answer = post(stream, path).await;
            assert!(answer.contains(" 405 "), "{answer}");
            assert!(answer.contains("millrace-copier ctl"), "{answer}");
        }
        assert_eq!((watch.stage(), queue.pop()), (Stage::Running, None));

        let path = std::env::temp_dir().join(format!("millrace-http-{}", std::process::id()));
        let socket = crate::control::CommandSocket::open(Some(&path), 0)
            .unwrap()
            .unwrap();
        let runtime = tokio::runtime::Handle::current();
        socket
            .serve(commands(queue.clone(), trigger, Log::stderr()), &runtime)
            .unwrap();
        let connect = || tokio::net::UnixStream::connect(&path);
        let answer = post(connect().await.unwrap(), "/pause").await;
        assert!(answer.contains(" 202 "), "{answer}");
        assert_eq!(queue.pop(), Some(Command::Pause));
        let answer = post(connect().await.unwrap(), "/stop").await;
        assert!(answer.contains("\ndraining"), "{answer}");
        let answer = post(connect().await.unwrap(), "/stop").await;
        assert!(answer.contains("already draining"), "{answer}");
        assert_eq!(watch.stage(), Stage::Draining, "what is open finishes");
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
