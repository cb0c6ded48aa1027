//! Where a live service is: at this host, at one address, or in pods of Kubernetes.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::{AddressError, check_single, parse_port, parse_socket_address};

/// The longest label, name part of a label key, and label value (Kubernetes, "Labels and Selectors").
const LABEL: usize = 63;
/// The longest prefix of a label key: a DNS subdomain.
const PREFIX: usize = 253;

/// The addresses of a live service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Live {
    /// Every address of this host.
    Host,
    /// This one.
    At(IpAddr),
    /// Those of pods of Kubernetes on this node, which come and go.
    Pods(Pods),
}

impl Live {
    /// The one address that it has.
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::At(ip) => Some(*ip),
            Self::Host | Self::Pods(_) => None,
        }
    }

    /// The pods that it is in.
    pub const fn pods(&self) -> Option<&Pods> {
        match self {
            Self::Pods(pods) => Some(pods),
            Self::Host | Self::At(_) => None,
        }
    }

    /// Whether it is at an address of this host, if that is one.
    pub fn is_at(&self, of_this_host: &IpAddr) -> bool {
        match self {
            Self::Host => true,
            Self::At(ip) => ip == of_this_host,
            Self::Pods(_) => false,
        }
    }

    /// How it is written with its port.
    pub(super) fn fmt_with_port(&self, port: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => write!(f, "{port}"),
            Self::At(ip) => write!(f, "{}", SocketAddr::new(*ip, port)),
            Self::Pods(pods) => write!(f, "{pods}:{port}"),
        }
    }
}

/// Pods of a namespace that belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pods {
    /// Their namespace.
    pub namespace: String,
    /// Which of them.
    pub chosen_by: ChosenBy,
}

/// What makes a pod one of those that are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChosenBy {
    /// The Service of this name, whose selector says it.
    Service(String),
    /// Labels that it must have, and with which values; at least one.
    Labels(Vec<(String, String)>),
}

impl Pods {
    /// How texts of this kind begin.
    const SERVICE: &'static str = "service/";
    const PODS: &'static str = "pods/";

    /// Whether a text names pods, rightly or wrongly.
    pub(super) fn are_named_by(text: &str) -> bool {
        text.starts_with(Self::SERVICE) || text.starts_with(Self::PODS)
    }

    /// Kubernetes' own form of the labels, `KEY=VALUE,...`; `None` where a Service chooses.
    pub fn selector(&self) -> Option<String> {
        let ChosenBy::Labels(labels) = &self.chosen_by else {
            return None;
        };
        let labels = labels.iter().map(|(key, value)| format!("{key}={value}"));
        Some(labels.collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Pods {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |what: String| {
            AddressError::new(format!(
                "'{text}': {what}; write service/NAMESPACE/NAME:PORT or \
                 pods/NAMESPACE/KEY=VALUE+KEY=VALUE:PORT"
            ))
        };
        let of_service = text.strip_prefix(Self::SERVICE);
        let rest = of_service.or_else(|| text.strip_prefix(Self::PODS));
        let parts = rest.and_then(|rest| rest.split_once('/'));
        let (namespace, which) = parts.ok_or_else(|| wrong("the namespace is missing".into()))?;
        if !is_dns_label(namespace) {
            return Err(wrong(format!("'{namespace}' is not a namespace")));
        }
        let chosen_by = if of_service.is_some() {
            if !is_dns_label(which) {
                return Err(wrong(format!("'{which}' is not the name of a Service")));
            }
            ChosenBy::Service(which.to_owned())
        } else {
            let labels = which.split('+').map(|label| {
                let (key, value) = label.split_once('=')?;
                let right = is_label_key(key) && is_label_value(value);
                right.then(|| (key.to_owned(), value.to_owned()))
            });
            let labels: Option<Vec<_>> = labels.collect();
            ChosenBy::Labels(labels.ok_or_else(|| wrong(format!("'{which}' are not labels")))?)
        };
        Ok(Self {
            namespace: namespace.to_owned(),
            chosen_by,
        })
    }
}

impl fmt::Display for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespace = &self.namespace;
        match &self.chosen_by {
            ChosenBy::Service(name) => write!(f, "{}{namespace}/{name}", Self::SERVICE),
            ChosenBy::Labels(labels) => {
                write!(f, "{}{namespace}/", Self::PODS)?;
                for (index, (key, value)) in labels.iter().enumerate() {
                    let plus = if index == 0 { "" } else { "+" };
                    write!(f, "{plus}{key}={value}")?;
                }
                Ok(())
            }
        }
    }
}

/// `[LIVE_IP:]PORT`, or pods and their port.
pub(super) fn parse_live(text: &str) -> Result<(Live, u16), AddressError> {
    if Pods::are_named_by(text) {
        let (pods, port) = text.rsplit_once(':').ok_or_else(|| {
            AddressError::new(format!(
                "'{text}': the pods' port is missing: write {text}:80"
            ))
        })?;
        return Ok((Live::Pods(pods.parse()?), parse_port(port)?));
    }
    if !text.starts_with('[') && !text.contains(':') {
        if text.contains('.') && text.parse::<IpAddr>().is_ok() {
            return Err(AddressError::new(format!(
                "'{text}': the live port is missing: write {text}:80"
            )));
        }
        return Ok((Live::Host, parse_port(text)?));
    }
    let address = parse_socket_address(text)?;
    if address.ip().is_unspecified() {
        return Err(AddressError::new(format!(
            "'{text}': for any address of this host write only the port, {}",
            address.port()
        )));
    }
    check_single(address.ip())?;
    Ok((Live::At(address.ip()), address.port()))
}

/// RFC 1123: what namespaces and Services are called.
fn is_dns_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let end = |c: Option<&u8>| c.is_some_and(|c| *c != b'-');
    let bytes = text.as_bytes();
    bytes.len() <= LABEL
        && bytes.iter().all(|c| inner(*c))
        && end(bytes.first())
        && end(bytes.last())
}

fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_label_name(text)
}

fn is_label_key(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let is_prefix = |prefix: &str| prefix.len() <= PREFIX && prefix.split('.').all(is_dns_label);
    prefix.is_none_or(is_prefix) && is_label_name(name)
}

fn is_label_name(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let end = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= LABEL
        && bytes.iter().all(|c| inner(*c))
        && end(bytes.first())
        && end(bytes.last())
}
