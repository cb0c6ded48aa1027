//! Where live services are now, and where their packets come by: what changes of it while a copier runs.

use std::net::IpAddr;

use millrace_capture::ServiceFilter;

/// News of where live services are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// This host has these addresses now.
    Host(Vec<IpAddr>),
    /// Services that are followed are here now.
    Followed(Followed),
}

/// Where services that are followed are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Followed {
    /// The addresses of each service, by its place in [`millrace_engine::Config::services`]; empty for those that are not
    /// followed.
    pub addresses: Vec<Vec<IpAddr>>,
    /// What is captured now, services that are not followed included.
    pub services: Vec<ServiceFilter>,
    /// Those of which packets to clients are captured whole.
    pub whole_services: Vec<ServiceFilter>,
    /// The devices that their packets come by.
    pub devices: Vec<String>,
}
