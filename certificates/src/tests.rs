//! A directory of certificates over its life.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A directory of its own, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("millrace-certificates-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn open(&self) -> Result<Certificates> {
        Certificates::open(&self.0, "example.test")
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    fn mode(&self, file: &str) -> u32 {
        let found = fs::metadata(self.0.join(file)).unwrap();
        found.permissions().mode() & 0o777
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_directory_keeps_its_ca_until_it_is_renewed() {
    let place = Place::new("renewed");
    let mut certificates = place.open().unwrap();
    let first = place.text("ca.pem");
    let files = certificates.issue("copier/live1", 30).unwrap();
    assert_eq!(files.cert, place.0.join("copier-live1.pem"));
    drop(place.open().unwrap());
    assert_eq!(place.text("ca.pem"), first);
    certificates.renew_ca().unwrap();
    let both = place.text("ca.pem");
    assert!(both.ends_with(&first) && both.len() > first.len());
    // What signs comes first, so the directory can be opened again.
    place.open().unwrap().forget_old_cas().unwrap();
    assert!(!place.text("ca.pem").contains(&first));
}

#[test]
fn keys_are_their_owners_alone() {
    let place = Place::new("keys");
    place.open().unwrap().issue("operator", 1).unwrap();
    assert_eq!(place.mode("ca-key.pem"), 0o600);
    assert_eq!(place.mode("operator-key.pem"), 0o600);
    assert_eq!(place.mode("ca.pem"), 0o644);
    assert_eq!(place.mode("operator.pem"), 0o644);
}

#[test]
fn nothing_that_is_there_is_written_over_unless_it_is_renewed() {
    let place = Place::new("there");
    let certificates = place.open().unwrap();
    certificates.issue("interceptor", 30).unwrap();
    let before = place.text("interceptor-key.pem");
    let error = certificates.issue("interceptor", 30).unwrap_err();
    assert!(matches!(error, Error::Exists(_)), "{error}");
    assert_eq!(place.text("interceptor-key.pem"), before);
    certificates.renew("interceptor", 30).unwrap();
    assert_ne!(place.text("interceptor-key.pem"), before);
    // One of the two is enough.
    fs::remove_file(place.0.join("interceptor.pem")).unwrap();
    assert!(matches!(
        certificates.issue("interceptor", 30),
        Err(Error::Exists(_))
    ));
}

#[test]
fn who_could_not_be_let_in_gets_no_certificate() {
    let place = Place::new("unfit");
    let certificates = place.open().unwrap();
    for path in [
        "router",
        "Copier",
        "copier/",
        "copier/lïve",
        "copier/a/b",
        "copier/..",
        "../copier",
        "copier/key",
        "copier/live1-key",
    ] {
        let error = certificates.issue(path, 30).unwrap_err();
        assert!(matches!(error, Error::Unfit { .. }), "{path}: {error}");
    }
    let other = Place::new("domain");
    assert!(Certificates::open(&other.0, "Example.test").is_err());
    assert!(!other.0.exists(), "nothing is made for it");
}

#[test]
fn half_a_ca_and_one_of_others_are_left_alone() {
    let (place, other) = (Place::new("one"), Place::new("other"));
    drop(place.open().unwrap());
    drop(other.open().unwrap());
    let theirs = other.text("ca.pem");
    fs::write(place.0.join("ca.pem"), &theirs).unwrap();
    assert!(matches!(place.open(), Err(Error::Foreign(_))));
    fs::remove_file(place.0.join("ca-key.pem")).unwrap();
    assert!(matches!(place.open(), Err(Error::Half { .. })));
    assert_eq!(place.text("ca.pem"), theirs);
    // A key that cannot be read is no reason for another CA.
    fs::create_dir(place.0.join("ca-key.pem")).unwrap();
    assert!(matches!(place.open(), Err(Error::Io { .. })));
}

#[test]
fn a_run_that_was_interrupted_leaves_a_ca_that_works() {
    let place = Place::new("interrupted");
    let first = place.open().unwrap();
    first.issue("copier", 30).unwrap();
    let (ca, key) = (place.text("ca.pem"), place.text("ca-key.pem"));
    // A first CA of which only the key was written.
    fs::remove_file(place.0.join("ca.pem")).unwrap();
    place.open().unwrap().renew("copier", 30).unwrap();
    assert!(place.text("ca.pem").contains("BEGIN CERTIFICATE"));
    // Another CA whose key was not written any more.
    let mut second = place.open().unwrap();
    second.renew_ca().unwrap();
    assert!(place.text("ca.pem").len() > ca.len());
    fs::write(place.0.join("ca-key.pem"), &key).unwrap();
    place.open().unwrap().renew("copier", 30).unwrap();
    assert_eq!(place.text("ca-key.pem"), key);
}
