//! Instructions that the engine may spend, as callgrind counts them: what it spends today, and a little for compilers.
//!
//! `make budget` fails where one is passed. Whoever makes something cheaper lowers its
//! figure; whoever raises one says in the commit what is had for it.

/// A request on an open connection, and its answer.
pub const KEEP_ALIVE_TURN: u64 = 12_820;
/// A segment of 1,448 bytes to the target, with its acknowledgements.
pub const BULK_UPLOAD_SEGMENT: u64 = 6_230;
/// A session with one request, from SYN to FIN.
pub const ONE_REQUEST_SESSION: u64 = 30_030;
/// The header of a segment of 1,448 bytes from the target.
pub const RESPONSE_HEADER: u64 = 1_675;
/// A request on an open connection and its answer, both framed by the module of HTTP.
pub const HTTP_TURN: u64 = 19_370;
/// The same, of which the module changes a header.
pub const HTTP_TURN_CHANGED: u64 = 21_040;
