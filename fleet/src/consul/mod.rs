//! Consul's HTTP API, as far as it is used here: <https://developer.hashicorp.com/consul/api-docs>.

mod client;
mod cursor;
mod health;
mod members;
mod record;
mod registration;
mod roll;
mod service;
mod settings;
mod slot;

pub use client::{Answer, Client, Failure, Request};
pub use members::Member;
pub use record::{Content, Record};
pub use registration::{Registrar, RegistrarStatus, Registration};
pub use roll::{Enrolled, Standing, roll};
pub use service::{Service, ServiceStatus, look_up};
pub use settings::{Settings, SettingsError};
pub use slot::{Kept, Lease, NoSlot, Slot};

/// Whether Consul did what it was asked, where its answer is `true` or `false`.
fn yes_or_no(answer: &Answer) -> Result<bool, Failure> {
    match answer.body.as_ref().trim_ascii() {
        b"true" => Ok(true),
        b"false" => Ok(false),
        other => Err(Failure::Unreadable(
            String::from_utf8_lossy(other).into_owned(),
        )),
    }
}
