//! An interceptor of an older version, which does not carry payload.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::match_wildcard_for_single_variants,
    missing_docs,
    unused_crate_dependencies
)]

mod pair;

use std::net::SocketAddr;
use std::time::Duration;

use millrace_proto::v1::interceptor_message::Kind;
use millrace_proto::v1::interceptor_server::{Interceptor, InterceptorServer};
use millrace_proto::v1::{CopierMessage, InterceptorMessage, Welcome};
use tokio::net::TcpListener;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

struct Older;

#[tonic::async_trait]
impl Interceptor for Older {
    type AttachStream = ReceiverStream<Result<InterceptorMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<CopierMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let kind = Some(Kind::Welcome(Welcome {
            protocol_version: 1,
            interceptor_id: "older".to_owned(),
            ..Welcome::default()
        }));
        sender.send(Ok(InterceptorMessage { kind })).await.unwrap();
        let mut messages = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(_)) = messages.message().await {}
            drop(sender);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

async fn older() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (service, incoming) = (
        InterceptorServer::new(Older),
        TcpListenerStream::new(listener),
    );
    let server = tonic::transport::Server::builder();
    tokio::spawn(async move { server.serve_with_incoming(service, incoming).await });
    address
}

#[tokio::test]
async fn it_serves_copiers_and_is_refused_by_one_whose_modules_need_payload() {
    let address = older().await;
    let mut plain = pair::link_to(address, |_| {});
    assert_eq!(plain.up().await, 1);
    let needy = pair::link_to(address, |config| config.needs_payload = true);
    let status = loop {
        let status = needy.handle.status();
        // It is tried again: the interceptor may have been replaced.
        if status.attempts > 2 {
            break status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let said = &status.last_error;
    assert!(said.contains("run the same version of both"), "{said}");
    assert!(!status.connected);
}
