//! What proves a password to a server: `mysql_native_password` and `caching_sha2_password`
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase_authentication_methods.html>).

use millrace_engine::protocol::{Failure, FailureKind};
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use super::key;
use super::wire::{Reader, malformed, unsupported};

/// The method of MariaDB, and of MySQL before 8.
pub(super) const NATIVE: &str = "mysql_native_password";
/// The method of MySQL since 8.
pub(super) const CACHING_SHA2: &str = "caching_sha2_password";

/// What a packet of an exchange begins with.
const SWITCH: u8 = 0xFE;
const MORE: u8 = 0x01;
/// `caching_sha2_password`: the proof is good; the password itself is wanted; a key is asked for.
const FAST_DONE: u8 = 0x03;
const FULL: u8 = 0x04;
const ASK_KEY: u8 = 0x02;

/// What a server wants to see mixed into a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scramble(Vec<u8>);

impl Scramble {
    const LEN: usize = 20;

    /// Of a server's bytes, which may end with a NUL.
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(bytes.iter().copied().take(Self::LEN).collect())
    }
}

/// One log-in at the target, until it is accepted or refused.
#[derive(Clone)]
pub(super) struct Exchange {
    plugin: String,
    scramble: Scramble,
    password: Vec<u8>,
    /// A key was asked for.
    asked_key: bool,
}

impl Exchange {
    /// Begins as the target's greeting, or the log-in before, says.
    pub(super) fn new(plugin: &str, scramble: &Scramble, password: &str) -> Self {
        // With a method that is not known the target is let choose again.
        let plugin = match plugin {
            CACHING_SHA2 => CACHING_SHA2,
            _ => NATIVE,
        };
        Self {
            plugin: plugin.to_owned(),
            scramble: scramble.clone(),
            password: password.as_bytes().to_vec(),
            asked_key: false,
        }
    }

    /// The method, and the scramble, that the next log-in of this session begins with.
    pub(super) fn method(&self) -> (&str, &Scramble) {
        (&self.plugin, &self.scramble)
    }

    /// The proof.
    pub(super) fn proof(&self) -> Vec<u8> {
        match self.plugin.as_str() {
            _ if self.password.is_empty() => Vec::new(),
            CACHING_SHA2 => caching_sha2(&self.password, &self.scramble),
            _ => native(&self.password, &self.scramble),
        }
    }

    /// What answers a packet of the target that neither accepts nor refuses, if anything does.
    ///
    /// # Errors
    /// It asks for what cannot, or must not, be given.
    pub(super) fn answer(&mut self, payload: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        match payload.split_first() {
            Some((&SWITCH, rest)) => self.switch(rest).map(Some),
            Some((&MORE, [FAST_DONE])) if self.plugin == CACHING_SHA2 => Ok(None),
            Some((&MORE, [FULL])) if self.plugin == CACHING_SHA2 && !self.asked_key => {
                self.asked_key = true;
                Ok(Some(vec![ASK_KEY]))
            }
            Some((&MORE, pem)) if self.asked_key => {
                self.asked_key = false;
                key::encrypt(pem, &self.masked()).map(Some)
            }
            _ => Err(malformed("the target asks a strange thing of a log-in")),
        }
    }

    fn switch(&mut self, rest: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut reader = Reader(rest);
        let plugin = reader.until_nul_or_end();
        self.plugin = match str::from_utf8(plugin) {
            Ok(name @ (NATIVE | CACHING_SHA2)) => name.to_owned(),
            Ok("") => {
                return Err(unsupported(
                    "the target asks for a log-in of before MySQL 4.1",
                ));
            }
            Ok("mysql_clear_password") => {
                return Err(unsupported("the target asks for the password in the clear"));
            }
            _ => {
                let shown = String::from_utf8_lossy(plugin.get(..40).unwrap_or(plugin));
                let text = format!("the target asks for the log-in {shown:?}");
                return Err(unsupported(text));
            }
        };
        self.scramble = Scramble::new(reader.0);
        self.asked_key = false;
        Ok(self.proof())
    }

    /// The password and a NUL, each byte mixed with one of the scramble: what is encrypted.
    fn masked(&self) -> Vec<u8> {
        let password = self.password.iter().chain(&[0]);
        let scramble = self.scramble.0.iter().cycle();
        password.zip(scramble).map(|(a, b)| a ^ b).collect()
    }
}

/// Why the target refused a log-in: the error's number, and never its text, which may repeat what it was given.
pub(super) fn refused(code: u16) -> Failure {
    let text = format!("the target refuses the log-in: error {code}");
    Failure::new(FailureKind::Login, text)
}

fn mix(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

/// SHA1(password) XOR SHA1(scramble, SHA1(SHA1(password))).
fn native(password: &[u8], scramble: &Scramble) -> Vec<u8> {
    let once = Sha1::digest(password);
    let twice = Sha1::digest(once);
    let seen = Sha1::new().chain_update(&scramble.0).chain_update(twice);
    mix(&once, &seen.finalize())
}

/// SHA256(password) XOR SHA256(SHA256(SHA256(password)), scramble).
fn caching_sha2(password: &[u8], scramble: &Scramble) -> Vec<u8> {
    let once = Sha256::digest(password);
    let twice = Sha256::digest(once);
    let seen = Sha256::new().chain_update(twice).chain_update(&scramble.0);
    mix(&once, &seen.finalize())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "auth_tests.rs"]
mod tests;
