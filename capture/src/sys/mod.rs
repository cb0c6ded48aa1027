//! System calls that no safe crate offers, each behind a safe function.
#![allow(unsafe_code)]

pub(crate) mod address;
pub(crate) mod mapping;
pub(crate) mod option;
pub(crate) mod register;
pub(crate) mod send_batch;
pub(crate) mod tun;
