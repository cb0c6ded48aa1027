//! Encrypts with a server's public key, where it wants a password itself.
//!
//! The key is a `SubjectPublicKeyInfo` in PEM (RFC 7468, RFC 5280 section 4.1, RFC 8017 appendix A.1.1); the encryption is
//! RSAES-OAEP with SHA-1 (RFC 8017 section 7.1), as `caching_sha2_password` has it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_engine::protocol::Failure;
use rsa::{BoxedUint, PublicKey};
use sha1::Sha1;

use super::wire::malformed;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";

/// Tags of DER.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// What the holder of this key can read.
///
/// # Errors
/// It is no key.
pub(super) fn encrypt(pem: &[u8], text: &[u8]) -> Result<Vec<u8>, Failure> {
    let key = read(pem).ok_or_else(|| malformed("the target's key is none"))?;
    let sealed = key.oaep_encrypt::<Sha1>(text);
    sealed.map_err(|_| malformed("the target's key is too short for the password"))
}

fn read(pem: &[u8]) -> Option<PublicKey> {
    let text = str::from_utf8(pem).ok()?;
    let (_, rest) = text.split_once(BEGIN)?;
    let (text, _) = rest.split_once(END)?;
    let text: String = text.split_ascii_whitespace().collect();
    let der = STANDARD.decode(text).ok()?;
    let info = &mut value(&mut &der[..], SEQUENCE)?;
    // Which algorithm: another than RSA has no such numbers.
    value(info, SEQUENCE)?;
    // The bits are whole bytes: none of the last is unused.
    let bits = value(info, BIT_STRING)?.strip_prefix(&[0])?;
    let numbers = &mut value(&mut &bits[..], SEQUENCE)?;
    let (modulus, exponent) = (value(numbers, INTEGER)?, value(numbers, INTEGER)?);
    PublicKey::new(number(modulus)?, number(exponent)?).ok()
}

/// A number of no more bits than it needs.
fn number(bytes: &[u8]) -> Option<BoxedUint> {
    let first = bytes.iter().position(|byte| *byte != 0)?;
    let bytes = bytes.get(first..)?;
    let bits = u32::try_from(bytes.len()).ok()?.checked_mul(8)?;
    BoxedUint::from_be_slice(bytes, bits).ok()
}

/// The next value, which has this tag.
fn value<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let rest = der.strip_prefix(&[tag])?;
    let (len, rest) = rest.split_first()?;
    let (len, rest) = match len {
        0..=0x7F => (usize::from(*len), rest),
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(len - 0x80))?;
            let len = bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (len, rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(len)?;
    *der = rest;
    Some(value)
}
