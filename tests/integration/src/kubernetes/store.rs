//! Objects by kind and name, every change with a version, as the Kubernetes API keeps them ("API concepts": list and watch,
//! selectors).

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A change of an object: which version it made, and what the object was and is.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) kind: String,
    pub(super) before: Option<Value>,
    pub(super) after: Option<Value>,
}

/// Which objects somebody wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) kind: String,
    pub(super) labels: Vec<(String, String)>,
    /// Paths like `spec.nodeName`, with their values.
    pub(super) fields: Vec<(String, String)>,
}

impl Wanted {
    /// Reads selectors of the form `a=b,c=d`.
    pub(super) fn new(kind: &str, labels: Option<&str>, fields: Option<&str>) -> Self {
        let pairs = |text: Option<&str>| {
            let pairs = text.unwrap_or_default().split(',');
            let pairs = pairs.filter_map(|pair| pair.split_once('='));
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect()
        };
        Self {
            kind: kind.to_owned(),
            labels: pairs(labels),
            fields: pairs(fields),
        }
    }

    fn takes(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let has = |(key, value): &(String, String)| labels[key] == *value.as_str();
        let is = |(path, value): &(String, String)| {
            let path = format!("/{}", path.replace('.', "/"));
            object.pointer(&path).and_then(Value::as_str) == Some(value)
        };
        self.labels.iter().all(has) && self.fields.iter().all(is)
    }

    /// What a watch says of a change, if anything.
    pub(super) fn event(&self, change: &Change) -> Option<Value> {
        if change.kind != self.kind {
            return None;
        }
        let taken = |object: &Option<Value>| object.clone().filter(|object| self.takes(object));
        let (kind, mut object) = match (taken(&change.before), taken(&change.after)) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", before),
        };
        object["metadata"]["resourceVersion"] = json!(change.version.to_string());
        Some(json!({"type": kind, "object": object}))
    }
}

/// All objects, and all changes.
#[derive(Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<(String, String), Value>,
    pub(super) changes: Vec<Change>,
}

impl Store {
    /// The last version.
    pub(super) fn version(&self) -> u64 {
        self.changes.last().map_or(1, |change| change.version)
    }

    /// Puts an object in, or takes it away; gives what it is then, or was.
    pub(super) fn set(
        &mut self,
        kind: &str,
        name: &str,
        mut after: Option<Value>,
    ) -> Option<Value> {
        let version = self.version() + 1;
        if let Some(object) = &mut after {
            object["metadata"]["resourceVersion"] = json!(version.to_string());
        }
        let place = (kind.to_owned(), name.to_owned());
        let before = match &after {
            Some(object) => self.objects.insert(place, object.clone()),
            None => self.objects.remove(&place),
        };
        let result = after.clone().or_else(|| before.clone());
        self.changes.push(Change {
            version,
            kind: kind.to_owned(),
            before,
            after,
        });
        result
    }

    pub(super) fn get(&self, kind: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(kind.to_owned(), name.to_owned()))
    }

    /// What a list says.
    pub(super) fn list(&self, wanted: &Wanted) -> Value {
        let of_kind = |((kind, _), object): &(&(String, String), &Value)| {
            *kind == wanted.kind && wanted.takes(object)
        };
        let items: Vec<&Value> = (self.objects.iter())
            .filter(of_kind)
            .map(|(_, object)| object)
            .collect();
        json!({
            "kind": if wanted.kind == "pods" { "PodList" } else { "ServiceList" },
            "apiVersion": "v1",
            "metadata": {"resourceVersion": self.version().to_string()},
            "items": items,
        })
    }
}
