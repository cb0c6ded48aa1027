//! What of the file system may be used (landlock(7)): the system's own files for reading, and the
//! files of the daemon.

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetStatus, path_beneath_rules,
};

use super::files::Paths;
use super::status::Confinement;
use crate::exit::ExitError;

/// The newest that is asked for; a kernel without it does what it can.
const NEWEST: ABI = ABI::V5;

/// Read by the C library and the kernel's interfaces, whenever a name is resolved or a library is
/// loaded. Who may read what in them stays as it is. Those that do not exist are left out.
const SYSTEM: [&str; 11] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/sbin",
    "/etc",
    "/proc",
    "/sys",
    "/run",
    "/nix/store",
];

/// Written by everybody.
const NULL: [&str; 1] = ["/dev/null"];

/// Rules that are ready to be enforced.
pub(super) struct Prepared(RulesetCreated);

/// Opens the paths that will be allowed; those that do not exist are left out.
pub(super) fn prepare(paths: &Paths) -> Result<Prepared, ExitError> {
    let read = AccessFs::from_read(NEWEST);
    let all = AccessFs::from_all(NEWEST);
    let rules = || {
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .create()?
            .add_rules(path_beneath_rules(SYSTEM, read))?
            .add_rules(path_beneath_rules(&paths.read, read))?
            .add_rules(path_beneath_rules(NULL, all))?
            .add_rules(path_beneath_rules(&paths.write, all))
    };
    rules().map(Prepared).map_err(|error| failed(&error))
}

impl Prepared {
    /// From here on, for this thread and those that it starts.
    pub(super) fn enforce(self) -> Result<Confinement, ExitError> {
        let status = self.0.restrict_self().map_err(|error| failed(&error))?;
        Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => Confinement::Full,
            RulesetStatus::PartiallyEnforced => Confinement::Partial,
            RulesetStatus::NotEnforced => Confinement::Unavailable,
        })
    }
}

fn failed(error: &landlock::RulesetError) -> ExitError {
    ExitError::start(format!(
        "cannot confine the file system with landlock: {error}; --no-landlock goes without"
    ))
}
