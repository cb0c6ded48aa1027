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

#[test]
fn hosts_are_named_and_stay_named() {
    let place = Place::new("hosts");
    let certificates = place.open().unwrap();
    let hosts = ["rs1.example.test", "198.18.2.101", "2001:db8::101"];
    let hosts: Vec<Host> = hosts.map(|host| host.parse().unwrap()).to_vec();
    let terms = |hosts: &[Host]| Terms {
        days: 30,
        hosts: hosts.to_vec(),
    };
    certificates
        .issue("interceptor/rs1", terms(&hosts))
        .unwrap();
    let named = || Host::named_by(&place.text("interceptor-rs1.pem")).unwrap();
    assert_eq!(named(), hosts);
    certificates.renew("interceptor/rs1", 30).unwrap();
    assert_eq!(named(), hosts);
    certificates
        .renew("interceptor/rs1", terms(&hosts[1..2]))
        .unwrap();
    assert_eq!(named(), hosts[1..2]);
    for wrong in [
        "",
        "*.example.test",
        "rs1:36524",
        "198.18.2.0/24",
        "a b",
        "-",
    ] {
        assert_eq!(wrong.parse::<Host>(), Err(NoHost), "{wrong}");
    }
    // In the form in which peers compare them.
    for (written, is) in [
        ("rs1.example.test.", "rs1.example.test"),
        ("::ffff:198.18.2.101", "198.18.2.101"),
    ] {
        assert_eq!(written.parse::<Host>().unwrap().to_string(), is);
    }
    // One that cannot be read may name some, which would be lost.
    fs::write(place.0.join("interceptor-rs1.pem"), "nothing").unwrap();
    let error = certificates.renew("interceptor/rs1", 30).unwrap_err();
    assert!(matches!(error, Error::Unnamed(_)), "{error}");
    certificates
        .renew("interceptor/rs1", terms(&hosts))
        .unwrap();
}

#[test]
fn nothing_outlives_its_ca() {
    let place = Place::new("outlives");
    let mut certificates = place.open().unwrap();
    certificates.issue("copier", 3650).unwrap();
    let before = place.text("copier.pem");
    // As if all but ten days of the CA had passed.
    certificates.authority.end_in(10);
    let error = certificates.renew("copier", 11).unwrap_err();
    assert!(
        matches!(error, Error::OutlivesCa { days: 11, left: 10 }),
        "{error}"
    );
    assert_eq!(place.text("copier.pem"), before);
    certificates.renew("copier", 10).unwrap();
    certificates.authority.end_in(-1);
    let error = certificates.renew("copier", 1).unwrap_err();
    assert!(matches!(error, Error::Ended), "{error}");
    certificates.renew_ca().unwrap();
    certificates.renew("copier", 3650).unwrap();
    // What a directory holds is known when it is opened again.
    assert!(place.open().unwrap().renew("copier", 3651).is_err());
}
