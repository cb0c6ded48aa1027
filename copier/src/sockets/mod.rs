//! TCP sockets of this host: where something listens, and which clients are connected.

mod clients;
mod listeners;
mod silence;
mod table;

pub(crate) use clients::Clients;
pub(crate) use listeners::Listeners;
pub(crate) use silence::{known_obstacle, nobody, ports, where_to_look};
