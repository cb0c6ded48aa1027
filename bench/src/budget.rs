//! Instructions that the engine may spend, as callgrind counts them: what it spends today, and a little for compilers.
//!
//! `make budget` fails where one is passed. Whoever makes something cheaper lowers its
//! figure; whoever raises one says in the commit what is had for it.

/// A request on an open connection, and its answer.
pub const KEEP_ALIVE_TURN: u64 = 13_330;
/// A segment of 1,448 bytes to the target, with its acknowledgements.
pub const BULK_UPLOAD_SEGMENT: u64 = 6_640;
/// A session with one request, from SYN to FIN.
pub const ONE_REQUEST_SESSION: u64 = 31_000;
/// The header of a segment of 1,448 bytes from the target.
pub const RESPONSE_HEADER: u64 = 1_760;
/// A request on an open connection and its answer, both framed by the module of HTTP.
pub const HTTP_TURN: u64 = 19_990;

// Framing may cost half as much again.
const _: () = assert!(2 * HTTP_TURN <= 3 * KEEP_ALIVE_TURN);
