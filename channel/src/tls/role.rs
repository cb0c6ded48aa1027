//! What a peer is, and sets of that.

use std::fmt;

/// What a certificate lets its holder be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Attaches to interceptors and asks router-agents for routes.
    Copier,
    /// Serves copiers; asks nobody for anything.
    Interceptor,
    /// Serves those who want routes; asks nobody for anything.
    RouterAgent,
    /// A person or tool that asks router-agents for routes.
    Operator,
}

impl Role {
    /// All there are.
    pub const ALL: [Role; 4] = [
        Role::Copier,
        Role::Interceptor,
        Role::RouterAgent,
        Role::Operator,
    ];

    /// As it stands in a certificate.
    pub fn name(self) -> &'static str {
        match self {
            Role::Copier => "copier",
            Role::Interceptor => "interceptor",
            Role::RouterAgent => "router-agent",
            Role::Operator => "operator",
        }
    }

    /// The role of this name.
    pub fn from_name(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }

    fn bit(self) -> u8 {
        match self {
            Role::Copier => 1,
            Role::Interceptor => 2,
            Role::RouterAgent => 4,
            Role::Operator => 8,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of roles: who may use a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// These and no others.
    pub fn of(roles: &[Role]) -> Self {
        Roles(roles.iter().fold(0, |bits, role| bits | role.bit()))
    }

    /// Whether `role` is one of them.
    pub fn contains(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Self {
        Roles(role.bit())
    }
}

impl fmt::Display for Roles {
    /// `copier or operator`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Role::ALL
            .into_iter()
            .filter(|role| self.contains(*role))
            .map(Role::name)
            .collect();
        f.write_str(&names.join(" or "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_roles_and_sets_hold_what_was_put_in() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
            assert!(Roles::from(role).contains(role));
        }
        assert_eq!(Role::from_name("Copier"), None);
        let roles = Roles::of(&[Role::Operator, Role::Copier]);
        assert!(!roles.contains(Role::Interceptor));
        assert_eq!(roles.to_string(), "copier or operator");
    }
}
