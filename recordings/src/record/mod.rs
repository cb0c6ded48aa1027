//! Live traffic into files that `-i FILE` replays later.
//!
//! - [`files`]: the files, how they follow each other and which are kept.
//! - [`room`]: how much of the disk stays free.
//! - [`recorder`]: from the capture rings into the files, until it is told to end.

pub mod files;
pub mod recorder;
pub mod room;
