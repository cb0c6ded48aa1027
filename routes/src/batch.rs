//! Filling messages to the size that is worth sending.

use millrace_proto::flow::{FLOW_ID_BYTES, FlowId, FlowRecord, MAX_FLOW_BYTES, encode_flow_id};
use millrace_proto::{BATCH_BYTES, MixedFamilies};

/// Packed records of one kind, for one message.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
}

impl Batch {
    /// Nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a flow to be announced. Returns a full batch when one has filled up; send it.
    ///
    /// # Errors
    /// [`MixedFamilies`]: no such flow can exist; nothing was added.
    pub fn push_flow(&mut self, flow: &FlowRecord) -> Result<Option<Vec<u8>>, MixedFamilies> {
        flow.encode(&mut self.bytes)?;
        Ok(self.full(MAX_FLOW_BYTES))
    }

    /// Adds a flow to be forgotten. Returns a full batch when one has filled up; send it.
    pub fn push_id(&mut self, id: FlowId) -> Option<Vec<u8>> {
        encode_flow_id(id, &mut self.bytes);
        self.full(FLOW_ID_BYTES)
    }

    /// What is in it, unless nothing is.
    pub fn take(&mut self) -> Option<Vec<u8>> {
        (!self.bytes.is_empty()).then(|| std::mem::take(&mut self.bytes))
    }

    fn full(&mut self, next: usize) -> Option<Vec<u8>> {
        if self.bytes.len() + next > BATCH_BYTES {
            self.take()
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::FlowRecords;

    use super::*;

    #[test]
    fn batches_fill_to_their_size_and_lose_nothing() {
        let mut batch = Batch::new();
        let mut sent = Vec::new();
        for id in 0..5000 {
            let flow = FlowRecord {
                id,
                target: "198.18.0.1:80".parse().unwrap(),
                client: "198.18.0.2:1000".parse().unwrap(),
                with_payload: false,
            };
            sent.extend(batch.push_flow(&flow).unwrap());
        }
        assert!(
            sent.iter()
                .all(|it| it.len() > BATCH_BYTES - 100 && it.len() <= BATCH_BYTES)
        );
        sent.extend(batch.take());
        let ids: Vec<_> = sent
            .iter()
            .flat_map(|it| FlowRecords::new(it))
            .map(|it| it.unwrap().id)
            .collect();
        assert_eq!(ids, (0..5000).collect::<Vec<_>>());
        assert_eq!(batch.take(), None);
    }
}
