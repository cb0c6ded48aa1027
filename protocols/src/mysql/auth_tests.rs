//! Known proofs (made with PyMySQL 1.2) and exchanges.

use rsa::{BoxedUint, PrivateKey};

use super::*;

const SCRAMBLE: &[u8] = b"01234567890123456789\0";

fn exchange(plugin: &str, password: &str) -> Exchange {
    Exchange::new(plugin, &Scramble::new(SCRAMBLE), password)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn proofs_are_those_of_other_clients() {
    assert_eq!(
        hex(&exchange(NATIVE, "secret").proof()),
        "7abe1a8776b59e931059451f81e596a60dbbf7a8"
    );
    assert_eq!(
        hex(&exchange(CACHING_SHA2, "secret").proof()),
        "1a2da2573c2faa367e2afddb54cdfd11a95ed22eef0167151196a6fc8e3d3813"
    );
    assert_eq!(exchange(NATIVE, "").proof(), b"");
    assert_eq!(exchange(CACHING_SHA2, "").proof(), b"");
}

#[test]
fn the_target_may_choose_another_method_with_another_scramble() {
    let mut it = exchange("client_ed25519", "secret");
    assert_eq!(it.method().0, NATIVE);
    let switch = [b"\xfecaching_sha2_password\0", SCRAMBLE].concat();
    let proof = exchange(CACHING_SHA2, "secret").proof();
    assert_eq!(it.answer(&switch), Ok(Some(proof)));
    assert_eq!(it.method(), (CACHING_SHA2, &Scramble::new(SCRAMBLE)));
    assert_eq!(it.answer(b"\x01\x03"), Ok(None));
}

#[test]
fn a_password_is_not_given_in_the_clear() {
    let fails = |bytes: &[u8]| exchange(NATIVE, "secret").answer(bytes).unwrap_err();
    let clear = fails(b"\xfemysql_clear_password\0");
    assert_eq!(clear.kind, FailureKind::Unsupported);
    assert_eq!(fails(b"\xfe").kind, FailureKind::Unsupported);
    assert_eq!(fails(b"\xfedialog\0\x02").kind, FailureKind::Unsupported);
    assert_eq!(fails(b"\x01\x04").kind, FailureKind::Malformed);
    // Without a question for a key there is none to take.
    let mut it = exchange(CACHING_SHA2, "secret");
    assert!(it.answer(&[b"\x01", PEM.as_bytes()].concat()).is_err());
}

#[test]
fn a_password_is_encrypted_for_the_target_alone() {
    let mut it = exchange(CACHING_SHA2, "secret");
    assert_eq!(it.answer(b"\x01\x04"), Ok(Some(vec![ASK_KEY])));
    let pem = [b"\x01", PEM.as_bytes()].concat();
    let sealed = it.answer(&pem).unwrap().unwrap();
    let number = |hex: &str| {
        let digits = hex.as_bytes().chunks(2);
        let bytes = digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap());
        BoxedUint::from_be_slice_vartime(&bytes.collect::<Vec<_>>())
    };
    let private = PrivateKey::from_p_q(number(P), number(Q), BoxedUint::from(65537u64)).unwrap();
    let text = private.oaep_decrypt::<Sha1>(&sealed).unwrap();
    let expected = mix(b"secret\0", SCRAMBLE);
    assert_eq!(text, expected);
    assert!(it.answer(b"\x01\x04").unwrap().is_some());
    assert!(it.answer(b"\x01unknown").is_err());
}

/// Made with OpenSSL for this test.
const PEM: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAqKbjbkFSkjKEe6iF2UQM\n\
8k4joot7a4UH0/26auzktM02cK4YuLk4lC7yEnssoWRNPpaMeze+QgJvRCPZSfmW\n\
GfNzU6tiocmBIySCxpZEl+KKBw0HLQ6+ExPCAhqj5CZfcnQyupU7plCnqNJo/+rs\n\
MItaOF2G6/8MNKMq+uh6PNuY1lJJBcO36OYkqYO+dEFFQI7ygZaq4Y92m3QVdl6Y\n\
dDuCxcAeZzKMaSMFZGyGMJQmjwWQDXOurpD7fi1bqoBJHm36LCeCyD4sNmSgkwsE\n\
VQFteRJhg8DOVjqFL12xOi7vc43SC/mQKV0wkLLOxWsAjM8UxjVBTFBa9FkEryb8\n\
GQIDAQAB\n\
-----END PUBLIC KEY-----\n";
const P: &str = "\
    ed5c7bbb45048f0096dd7334f73d82c03c9a2a13d239da3679741db74e55c9492d50ca38a86a59e7648eed575b00386e\
    de13f5c72c9e48c4909e78476b9cb9d914496fac99e707be748a2cb06f7959fb4b9b9a14d7bcef0953fa05a6c773c64e\
    c3fbd6d7fcad5ff473caa868a1f8d764f1b58752efed402b2bcbd756f76a8d0d";
const Q: &str = "\
    b5e52fb114dd964c9061db07f624230970518ac944e9aa91e921b904e6e71058f9211895ba8a1e747bc13369a8cf8c7f\
    b3b1bf3b1e5a061396f17220b9a7d94e48554434f88877125db5c9d28eefbee96ee7f6e9c0b09c21bbfe84ba77ffa909\
    fd0a7944af142afa2899610661a28027d742f675c4c814187958c20216b8e03d";
