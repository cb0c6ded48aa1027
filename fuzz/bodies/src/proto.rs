//! Bytes that another daemon sent.

use millrace_proto::flow::{check_flow_ids, check_flows, encode_flow_id};
use millrace_proto::v1::{CopierMessage, InterceptorMessage, copier_message, interceptor_message};
use millrace_proto::{
    ClaimSet, ClientRange, FlowIds, FlowRecords, HeaderRecords, TraceReport, TraceRequest,
};
use prost::Message;

/// Decodes bytes as each of the things that travel between copier and interceptor.
///
/// The first byte says which; the others are it.
pub fn proto_messages(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    match kind % 5 {
        0 => flows(bytes),
        1 => flow_ids(bytes),
        2 => headers(bytes),
        3 => from_copier(bytes),
        _ => from_interceptor(bytes),
    }
}

fn flows(bytes: &[u8]) {
    let mut again = Vec::new();
    let mut count = 0;
    for record in FlowRecords::new(bytes).flatten() {
        assert!(record.encode(&mut again).is_ok(), "decoded, not encoded");
        count += 1;
    }
    assert!(bytes.starts_with(&again), "flow records are canonical");
    match check_flows(bytes) {
        Ok(checked) => assert_eq!((checked, again.len()), (count, bytes.len())),
        Err(_) => assert!(again.len() < bytes.len()),
    }
}

fn flow_ids(bytes: &[u8]) {
    let mut again = Vec::new();
    FlowIds::new(bytes)
        .flatten()
        .for_each(|id| encode_flow_id(id, &mut again));
    assert!(bytes.starts_with(&again), "flow ids are canonical");
    assert_eq!(check_flow_ids(bytes).is_ok(), again.len() == bytes.len());
}

fn headers(bytes: &[u8]) {
    let mut again = Vec::new();
    for record in HeaderRecords::new(bytes).flatten() {
        let encoded = record.header.encode_with(record.payload, &mut again);
        assert!(encoded.is_ok(), "decoded, not encoded");
    }
    assert!(bytes.starts_with(&again), "header records are canonical");
}

fn from_copier(bytes: &[u8]) {
    use copier_message::Kind;
    let Ok(message) = CopierMessage::decode(bytes) else {
        return;
    };
    comes_back(&message);
    match message.kind {
        Some(Kind::Announce(announce)) => flows(&announce.flows),
        Some(Kind::Forget(forget)) => flow_ids(&forget.flow_ids),
        Some(Kind::Claim(claim)) => {
            if let Ok(set) = ClaimSet::try_from(&claim) {
                let again = ClaimSet::try_from(&millrace_proto::v1::Claim::from(&set));
                assert_eq!(again.as_ref(), Ok(&set), "a claim comes back");
                assert_eq!(
                    set.overlaps(&set),
                    !set.ranges.is_empty(),
                    "a claim overlaps itself"
                );
            }
        }
        Some(Kind::Trace(trace)) => {
            if let Ok(request) = TraceRequest::try_from(&trace) {
                let again = TraceRequest::try_from(&millrace_proto::v1::Trace::from(&request));
                assert_eq!(again, Ok(request), "a trace comes back");
            }
        }
        Some(Kind::Hello(_) | Kind::ResyncBegin(_) | Kind::ResyncEnd(_) | Kind::Ping(_)) | None => {
        }
    }
}

fn from_interceptor(bytes: &[u8]) {
    use interceptor_message::Kind;
    let Ok(message) = InterceptorMessage::decode(bytes) else {
        return;
    };
    comes_back(&message);
    match message.kind {
        Some(Kind::Headers(batch)) => headers(&batch.records),
        Some(Kind::Conflict(conflict)) => flow_ids(&conflict.flow_ids),
        Some(Kind::Traced(traced)) => {
            let report = TraceReport::from(traced);
            let again = TraceReport::from(millrace_proto::v1::Traced::from(report.clone()));
            assert_eq!(again, report, "a report comes back");
        }
        Some(Kind::Taken(taken)) => flows(&taken.flows),
        Some(Kind::Others(others)) => {
            if let Ok(ranges) = ClientRange::read_all(&others.ranges) {
                let again: Vec<_> = ranges.iter().map(Into::into).collect();
                assert_eq!(ClientRange::read_all(&again), Ok(ranges));
            }
        }
        Some(Kind::Welcome(_) | Kind::Refused(_) | Kind::Pong(_) | Kind::Granted(_)) | None => {}
    }
}

/// What is decoded encodes to something that decodes to the same.
fn comes_back<M: Message + Default + PartialEq + std::fmt::Debug>(message: &M) {
    let bytes = message.encode_to_vec();
    assert!(
        M::decode(bytes.as_slice()).is_ok_and(|again| again == *message),
        "a message comes back: {message:?}"
    );
}
