//! What operators ask for while the copier runs.

use millrace_engine::Intensity;

use crate::ramp::Ramp;

/// A wish of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// From now on this much. Ends a ramp.
    Set(Intensity),
    /// A new ramp, from its beginning.
    Follow(Ramp),
    /// Nothing new is copied; open sessions go on. A ramp stands still.
    Pause,
    /// On from where a pause, a guard or a stop left it.
    Resume,
    /// Nothing is copied any more: open copies end, too.
    Stop,
}
