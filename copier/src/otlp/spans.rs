//! What is told of sampled sessions as spans, by OpenTelemetry's conventions where these have a name.
//!
//! Each turn is a trace of its own, of one span: connections live for days, and a trace of millions of spans is of no use.
//! It links to the span of its replica, which comes when that is over.

use std::hash::Hasher;
use std::net::SocketAddr;
use std::time::Duration;

use millrace_daemon::incarnation::random_u64;
use millrace_engine::{Answer, Service, Teller, Time, Told, ToldReplica, ToldTurn};
use millrace_proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use millrace_proto::otlp::common::v1::any_value::Value;
use millrace_proto::otlp::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use millrace_proto::otlp::resource::v1::Resource;
use millrace_proto::otlp::trace::v1::span::{Event, Link, SpanKind};
use millrace_proto::otlp::trace::v1::status::StatusCode;
use millrace_proto::otlp::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use siphasher::sip128::{Hasher128, SipHasher24};

use super::Clients;

/// Stands for the span of the replica itself among those of its turns.
const WHOLE: u32 = u32::MAX;

/// Makes spans.
#[derive(Clone, Debug)]
pub(super) struct Spans {
    resource: Resource,
    services: Vec<Service>,
    clients: Clients,
    /// Key of the hashes that names and clients become: this run's alone.
    key: [u8; 16],
}

impl Spans {
    /// Those of a copier with this name and these services.
    pub(super) fn new(id: &str, services: &[Service], clients: Clients) -> Self {
        let mut key = [0; 16];
        let random = [random_u64(), random_u64()].map(u64::to_be_bytes);
        for (byte, from) in key.iter_mut().zip(random.into_iter().flatten()) {
            *byte = from;
        }
        let attributes = vec![
            text("service.name", "millrace-copier"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text("service.instance.id", id),
        ];
        Self {
            resource: Resource {
                attributes,
                ..Resource::default()
            },
            services: services.to_vec(),
            clients,
            key,
        }
    }

    /// The request that bears all of these.
    pub(super) fn request(&self, told: &[Told]) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: "millrace".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans: told.iter().map(|told| self.span(told)).collect(),
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
    }

    fn span(&self, told: &Told) -> Span {
        match told {
            Told::Turn(turn) => self.turn(turn),
            Told::Replica(replica) => self.replica(replica),
        }
    }

    fn turn(&self, turn: &ToldTurn) -> Span {
        let mut attributes = self.common(&turn.teller);
        attributes.extend([
            number("millrace.turn.number", turn.number),
            number("millrace.turn.size", turn.bytes),
            number("millrace.turn.delivered", turn.delivered),
            number("millrace.turn.answered", turn.answered),
            number("millrace.turn.retransmitted", turn.retransmitted),
        ]);
        attributes.extend(turn.lag.map(|it| micros("millrace.turn.lag_us", it)));
        let live = turn.live_first;
        attributes.extend(live.map(|it| micros("millrace.live.first_byte_us", it)));
        if let Some((first, last)) = turn.target {
            attributes.push(micros("millrace.target.first_byte_us", first));
            attributes.push(micros("millrace.target.last_byte_us", last));
        }
        if let Some(answer) = turn.answer {
            let name = match answer {
                Answer::Whole => "whole",
                Answer::Shorter => "shorter",
                Answer::Awaited => "awaited",
            };
            attributes.push(text("millrace.turn.answer", name));
        }
        // An answer that came is one, however the replica ended afterwards.
        let unplayed = turn.target.is_none() || turn.delivered < turn.bytes;
        let failed = match (turn.aborted.filter(|_| unplayed), turn.answer) {
            (Some(reason), _) => Some(reason.name()),
            (None, Some(Answer::Awaited)) => Some("no_answer"),
            (None, Some(Answer::Whole | Answer::Shorter) | None) => None,
        };
        let (trace_id, span_id) = self.ids(&turn.teller, WHOLE);
        let link = Link {
            trace_id: trace_id.to_vec().into(),
            span_id: span_id.to_vec().into(),
            ..Link::default()
        };
        let captured = Event {
            time_unix_nano: nanos(turn.captured_at),
            name: "millrace.captured".to_owned(),
            ..Event::default()
        };
        Span {
            name: "turn".to_owned(),
            start_time_unix_nano: nanos(turn.sent_at),
            end_time_unix_nano: nanos(turn.ended_at.max(turn.sent_at)),
            events: vec![captured],
            links: vec![link],
            ..self.begun(&turn.teller, turn.number, attributes, failed)
        }
    }

    fn replica(&self, replica: &ToldReplica) -> Span {
        let begun_at = replica.teller.begun_at;
        let mut attributes = self.common(&replica.teller);
        attributes.extend([
            number("millrace.replica.turns", replica.turns),
            number("millrace.replica.size", replica.bytes),
            number("millrace.replica.delivered", replica.delivered),
            number("millrace.replica.retransmitted", replica.retransmitted),
        ]);
        if let Some(at) = replica.established_at {
            attributes.push(micros("millrace.replica.connect_us", at.since(begun_at)));
        }
        let failed = replica.aborted.map(|reason| reason.name());
        attributes.push(text(
            "millrace.replica.outcome",
            failed.unwrap_or("completed"),
        ));
        Span {
            name: "replica".to_owned(),
            start_time_unix_nano: nanos(begun_at),
            end_time_unix_nano: nanos(replica.ended_at.max(begun_at)),
            ..self.begun(&replica.teller, WHOLE, attributes, failed)
        }
    }

    /// What every span has.
    fn begun(
        &self,
        teller: &Teller,
        turn: u32,
        mut attributes: Vec<KeyValue>,
        failed: Option<&'static str>,
    ) -> Span {
        let (trace_id, span_id) = self.ids(teller, turn);
        attributes.extend(failed.map(|reason| text("error.type", reason)));
        Span {
            trace_id: trace_id.to_vec().into(),
            span_id: span_id.to_vec().into(),
            kind: SpanKind::Client.into(),
            attributes,
            status: failed.map(|_| Status {
                code: StatusCode::Error.into(),
                ..Status::default()
            }),
            ..Span::default()
        }
    }

    /// What every span says.
    fn common(&self, teller: &Teller) -> Vec<KeyValue> {
        let live = teller.live.destination;
        let mut attributes = vec![
            text("network.transport", "tcp"),
            text("millrace.live", SocketAddr::from(live).to_string()),
            number("millrace.replica.number", teller.number),
        ];
        if let Some(service) = self.services.get(teller.service) {
            let target = service.target;
            attributes.push(text("server.address", target.ip.to_string()));
            attributes.push(number("server.port", target.port));
        }
        let client = teller.live.source;
        match self.clients {
            Clients::None => {}
            Clients::Hashed => {
                let mut hasher = SipHasher24::new_with_key(&self.key);
                hasher.write(b"client");
                hasher.write(client.ip.to_canonical().to_string().as_bytes());
                let hash = hasher.finish128().h1;
                attributes.push(text("millrace.client.hash", format!("{hash:016x}")));
            }
            Clients::Plain => {
                attributes.push(text("client.address", client.ip.to_canonical().to_string()));
                attributes.push(number("client.port", client.port));
            }
        }
        attributes
    }

    /// The names of a span: of its trace, and its own.
    fn ids(&self, teller: &Teller, turn: u32) -> ([u8; 16], [u8; 8]) {
        let hash = |what: &[u8]| {
            let mut hasher = SipHasher24::new_with_key(&self.key);
            hasher.write(what);
            hasher.write(&teller.number.to_be_bytes());
            hasher.write(&teller.begun_at.as_micros().to_be_bytes());
            hasher.write(&turn.to_be_bytes());
            hasher.finish128()
        };
        let (trace, span) = (hash(b"trace"), hash(b"span"));
        // All zeros would be no name.
        (
            (trace.as_u128() | 1).to_be_bytes(),
            (span.h1 | 1).to_be_bytes(),
        )
    }
}

fn nanos(time: Time) -> u64 {
    time.as_micros().saturating_mul(1000)
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: impl TryInto<i64>) -> KeyValue {
    let value = value.try_into().unwrap_or(i64::MAX);
    attribute(key, Value::IntValue(value))
}

fn micros(key: &str, value: Duration) -> KeyValue {
    number(key, value.as_micros())
}

#[cfg(test)]
mod tests {
    use millrace_engine::AbortReason;
    use millrace_wire::{Endpoint, FourTuple};

    use super::*;

    fn end(text: &str) -> Endpoint {
        text.parse::<SocketAddr>().unwrap().into()
    }

    fn spans(clients: Clients) -> Spans {
        let service = Service {
            live: millrace_engine::LiveAddress::Host,
            live_port: 80,
            target: end("198.18.0.20:8080"),
        };
        Spans::new("live1", &[service], clients)
    }

    fn turn() -> ToldTurn {
        let at = |millis: u64| Time::from_micros(1_700_000_000_000_000 + millis * 1000);
        ToldTurn {
            teller: Teller {
                number: 7,
                service: 0,
                live: FourTuple::new(end("198.18.0.1:40000"), end("198.18.0.10:80")),
                begun_at: at(0),
            },
            number: 3,
            captured_at: at(10),
            sent_at: at(12),
            ended_at: at(20),
            bytes: 120,
            delivered: 120,
            retransmitted: 1,
            lag: Some(Duration::from_millis(2)),
            live_first: Some(Duration::from_millis(4)),
            target: Some((Duration::from_millis(6), Duration::from_millis(8))),
            answered: 500,
            answer: Some(Answer::Whole),
            aborted: None,
        }
    }

    fn replica(aborted: Option<AbortReason>) -> ToldReplica {
        ToldReplica {
            teller: turn().teller,
            established_at: Some(turn().captured_at),
            ended_at: turn().ended_at,
            turns: 4,
            bytes: 480,
            delivered: 480,
            retransmitted: 1,
            aborted,
        }
    }

    /// An attribute as text.
    fn said(span: &Span, key: &str) -> Option<String> {
        let found = span.attributes.iter().find(|it| it.key == key)?;
        match found.value.clone()?.value? {
            Value::StringValue(text) => Some(text),
            Value::IntValue(number) => Some(number.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_turn_is_a_client_span_from_its_sending_to_the_end_of_the_answer() {
        let span = spans(Clients::None).turn(&turn());
        assert_eq!(span.name, "turn");
        assert_eq!(span.kind, i32::from(SpanKind::Client));
        let nanos = |millis: u64| (1_700_000_000_000 + millis) * 1_000_000;
        assert_eq!(span.start_time_unix_nano, nanos(12));
        assert_eq!(span.end_time_unix_nano, nanos(20));
        assert_eq!(span.events[0].time_unix_nano, nanos(10));
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        for (key, value) in [
            ("server.address", "198.18.0.20"),
            ("server.port", "8080"),
            ("millrace.live", "198.18.0.10:80"),
            ("millrace.turn.number", "3"),
            ("millrace.turn.size", "120"),
            ("millrace.turn.delivered", "120"),
            ("millrace.turn.lag_us", "2000"),
            ("millrace.live.first_byte_us", "4000"),
            ("millrace.target.first_byte_us", "6000"),
            ("millrace.target.last_byte_us", "8000"),
            ("millrace.turn.retransmitted", "1"),
            ("millrace.turn.answer", "whole"),
        ] {
            assert_eq!(said(&span, key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(span.status, None);
        assert_eq!(said(&span, "error.type"), None);
    }

    #[test]
    fn turns_link_to_the_span_of_their_replica_and_all_names_differ() {
        let spans = spans(Clients::None);
        let whole = spans.replica(&replica(None));
        let span = spans.turn(&turn());
        assert_eq!(span.links[0].trace_id, whole.trace_id);
        assert_eq!(span.links[0].span_id, whole.span_id);
        assert_ne!(span.trace_id, whole.trace_id);
        let next = spans.turn(&ToldTurn {
            number: 4,
            ..turn()
        });
        assert_ne!(span.trace_id, next.trace_id);
        assert_ne!(span.span_id, next.span_id);
        assert_eq!(
            said(&whole, "millrace.replica.outcome").unwrap(),
            "completed"
        );
        assert_eq!(
            said(&whole, "millrace.replica.connect_us").unwrap(),
            "10000"
        );
    }

    #[test]
    fn what_failed_is_an_error_with_its_reason_and_what_was_answered_is_none() {
        let spans = spans(Clients::None);
        let aborted = spans.replica(&replica(Some(AbortReason::Timeout)));
        assert_eq!(said(&aborted, "error.type").unwrap(), "timeout");
        assert_eq!(aborted.status.unwrap().code, i32::from(StatusCode::Error));
        let reason = Some(AbortReason::TargetReset);
        let answered = spans.turn(&ToldTurn {
            aborted: reason,
            ..turn()
        });
        assert_eq!(answered.status, None);
        let unanswered = ToldTurn {
            aborted: reason,
            target: None,
            answer: None,
            ..turn()
        };
        let unanswered = spans.turn(&unanswered);
        assert_eq!(said(&unanswered, "error.type").unwrap(), "target_reset");
        let awaited = ToldTurn {
            answer: Some(Answer::Awaited),
            target: None,
            ..turn()
        };
        assert_eq!(
            said(&spans.turn(&awaited), "error.type").unwrap(),
            "no_answer"
        );
    }

    #[test]
    fn clients_are_left_out_hashed_or_named_as_asked_for() {
        let all = |clients| {
            format!(
                "{:?}",
                spans(clients).request(&[Told::Turn(Box::new(turn()))])
            )
        };
        for clients in [Clients::None, Clients::Hashed] {
            let text = all(clients);
            assert!(
                !text.contains("198.18.0.1\"") && !text.contains("40000"),
                "{text}"
            );
        }
        let span = spans(Clients::Plain).turn(&turn());
        assert_eq!(said(&span, "client.address").unwrap(), "198.18.0.1");
        assert_eq!(said(&span, "client.port").unwrap(), "40000");
        let (one, other) = (spans(Clients::Hashed), spans(Clients::Hashed));
        let hash = |spans: &Spans| said(&spans.turn(&turn()), "millrace.client.hash").unwrap();
        assert_eq!(hash(&one), hash(&one));
        assert_ne!(hash(&one), hash(&other), "the salt is of one run");
    }
}
