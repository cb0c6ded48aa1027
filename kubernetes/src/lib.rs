//! Which pods of this node a live service is in, as the Kubernetes API tells and goes on telling: pods come and go while
//! sessions are copied.
//!
//! - [`Access`]: how the API is reached, and as whom.
//! - [`follow`]: the pods that are meant, from now on, as [`Standing`].
//!
//! What is asked for is little: pods in one namespace, of one node, by their labels; and, where a Service names these, the
//! Service. While the API is away what was known last stays.

mod access;
mod following;
mod news;
mod roll;
mod standing;

pub use access::{Access, AccessError};
pub use following::follow;
pub use standing::{Doubt, Standing};
