//! One record in the key-value store, which is replaced as a whole, and only if nobody has replaced it meanwhile
//! (<https://developer.hashicorp.com/consul/api-docs/kv>).

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use super::client::{Client, Failure, Request};

/// A record.
#[derive(Clone, Debug)]
pub struct Record {
    client: Client,
    key: String,
}

/// What it held at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// Changes with each replacement.
    pub version: u64,
    /// What was written.
    pub bytes: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    modify_index: u64,
    value: Option<String>,
}

impl Record {
    /// The one at a key. Nothing is sent yet.
    pub fn new(client: Client, key: String) -> Self {
        Self { client, key }
    }

    /// Its key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it holds, by the word of a leader that a majority confirms; None: there is none. Waits up to so long for the answer.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn read(&self, patience: Duration) -> Result<Option<Content>, Failure> {
        // A leader that has been replaced and does not know it yet would answer otherwise.
        let question = Request::get(&["kv", &self.key]).with("consistent", None);
        let question = question.patience(patience);
        match self.client.send(question).await {
            Ok(answer) => content(&answer.body).map(Some),
            Err(Failure::Status(404, _)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Replaces what was read, or makes the first one (`None`). Says whether it did: not if somebody else was first.
    ///
    /// # Errors
    /// Why it is not known whether it did.
    pub async fn replace(
        &self,
        read: Option<u64>,
        bytes: Vec<u8>,
        patience: Duration,
    ) -> Result<bool, Failure> {
        let version = read.unwrap_or(0).to_string();
        let request = Request::put(&["kv", &self.key]).with("cas", Some(&version));
        let request = request.body(bytes).patience(patience);
        super::yes_or_no(&self.client.send(request).await?)
    }
}

fn content(body: &[u8]) -> Result<Content, Failure> {
    let unreadable = |error: &dyn std::fmt::Display| Failure::Unreadable(error.to_string());
    let entries: Vec<Entry> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let [entry] = entries.as_slice() else {
        return Err(unreadable(&"not one entry"));
    };
    let value = entry.value.as_deref().unwrap_or_default();
    Ok(Content {
        version: entry.modify_index,
        bytes: BASE64_STANDARD
            .decode(value)
            .map_err(|error| unreadable(&error))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_with_its_version_and_anything_else_is_refused() {
        let body = br#"[{"LockIndex":0,"Key":"k","Flags":0,"Value":"aGk=","CreateIndex":3,"ModifyIndex":7}]"#;
        let read = content(body).unwrap();
        assert_eq!((read.version, read.bytes.as_slice()), (7, &b"hi"[..]));
        let empty = content(br#"[{"Value":null,"ModifyIndex":7}]"#).unwrap();
        assert_eq!(empty.bytes, b"");
        for wrong in [
            &b""[..],
            b"[]",
            b"{}",
            b"[{},{}]",
            br#"[{"Value":"aGk=","ModifyIndex":7},{"Value":"aGk=","ModifyIndex":8}]"#,
            br#"[{"Value":"?","ModifyIndex":7}]"#,
            br#"[{"Value":"aGk=","ModifyIndex":-7}]"#,
        ] {
            assert!(content(wrong).is_err());
        }
    }
}
