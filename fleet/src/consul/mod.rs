//! Consul's HTTP API, as far as it is used here: <https://developer.hashicorp.com/consul/api-docs>.

mod client;
mod cursor;
mod members;
mod registration;
mod service;
mod settings;
mod slot;

pub use client::{Answer, Client, Failure, Request};
pub use members::Member;
pub use registration::{Registrar, RegistrarStatus, Registration};
pub use service::{Service, ServiceStatus, look_up};
pub use settings::{Settings, SettingsError};
pub use slot::{Kept, Lease, NoSlot, Slot};
