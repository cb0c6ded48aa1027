//! The URI in a certificate: `spiffe://TRUST_DOMAIN/millrace/ROLE[/NAME]`.
//!
//! Follows SPIFFE-ID 1.0, section 2: the scheme and trust domain are lower case, no port, user,
//! query or fragment, and path segments hold letters, digits, `.`, `-` and `_`.

use std::fmt;
use std::str::FromStr;

use super::Role;

/// Longest SPIFFE ID (SPIFFE-ID 1.0, section 2.3). Bytes.
const MAX_URI: usize = 2048;

/// Longest trust domain (section 2.1). Bytes.
const MAX_TRUST_DOMAIN: usize = 255;

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The trust domain: peers of another one are refused.
    pub trust_domain: String,
    /// What the holder may do.
    pub role: Role,
    /// Which of its role it is. A copier may only use copier names that begin with it.
    pub name: Option<String>,
}

/// Why a URI is no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Another scheme, or too long.
    #[error("it is no SPIFFE ID (spiffe://TRUST_DOMAIN/millrace/ROLE[/NAME])")]
    NotSpiffe,
    /// Not a host name in lower case.
    #[error("its trust domain must be 1 to 255 of a-z, 0-9, '.', '-' and '_'")]
    TrustDomain,
    /// The path is another one.
    #[error("its path must be /millrace/ROLE or /millrace/ROLE/NAME")]
    Path,
    /// No such role.
    #[error("its role must be copier, interceptor, router-agent or operator")]
    Role,
    /// Characters that SPIFFE does not allow.
    #[error("its name must be of letters, digits, '.', '-' and '_'")]
    Name,
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let rest = uri
            .strip_prefix("spiffe://")
            .filter(|_| uri.len() <= MAX_URI)
            .ok_or(IdentityError::NotSpiffe)?;
        let (trust_domain, path) = rest.split_once('/').ok_or(IdentityError::Path)?;
        let in_domain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_');
        if trust_domain.is_empty()
            || trust_domain.len() > MAX_TRUST_DOMAIN
            || !trust_domain.chars().all(in_domain)
        {
            return Err(IdentityError::TrustDomain);
        }
        let mut segments = path.split('/');
        if segments.next() != Some("millrace") {
            return Err(IdentityError::Path);
        }
        let role = segments.next().ok_or(IdentityError::Path)?;
        let role = Role::from_name(role).ok_or(IdentityError::Role)?;
        let name = segments.next();
        if segments.next().is_some() {
            return Err(IdentityError::Path);
        }
        let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_some_and(|name| {
            name.is_empty() || name == "." || name == ".." || !name.chars().all(in_name)
        }) {
            return Err(IdentityError::Name);
        }
        Ok(Identity {
            trust_domain: trust_domain.to_owned(),
            role,
            name: name.map(str::to_owned),
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/millrace/{}", self.trust_domain, self.role)?;
        match &self.name {
            Some(name) => write!(f, "/{name}"),
            None => Ok(()),
        }
    }
}

impl Identity {
    /// Whether the holder may call itself `id`: the certificate's name itself, or that name
    /// followed by `/` or `:` (`live1/198.18.0.1:80`). A certificate without a name allows all.
    pub fn may_be_called(&self, id: &str) -> bool {
        let Some(name) = &self.name else { return true };
        id.strip_prefix(name.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ':']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn well_formed_identities_are_read_and_written_alike() {
        for uri in [
            "spiffe://example.test/millrace/copier",
            "spiffe://example.test/millrace/interceptor/rs-1.example",
            "spiffe://a/millrace/router-agent/x_1",
            "spiffe://prod.example/millrace/operator/Ann",
        ] {
            assert_eq!(uri.parse::<Identity>().unwrap().to_string(), uri);
        }
    }

    #[test]
    fn others_are_refused_with_the_reason() {
        for (uri, why) in [
            (
                "https://example.test/millrace/copier",
                IdentityError::NotSpiffe,
            ),
            (
                "SPIFFE://example.test/millrace/copier",
                IdentityError::NotSpiffe,
            ),
            ("spiffe://example.test", IdentityError::Path),
            ("spiffe:///millrace/copier", IdentityError::TrustDomain),
            (
                "spiffe://Example.test/millrace/copier",
                IdentityError::TrustDomain,
            ),
            ("spiffe://a:80/millrace/copier", IdentityError::TrustDomain),
            ("spiffe://u@a/millrace/copier", IdentityError::TrustDomain),
            ("spiffe://a/other/copier", IdentityError::Path),
            ("spiffe://a/millrace", IdentityError::Path),
            ("spiffe://a/millrace/admin", IdentityError::Role),
            ("spiffe://a/millrace/copier/", IdentityError::Name),
            ("spiffe://a/millrace/copier/..", IdentityError::Name),
            ("spiffe://a/millrace/copier/x?y", IdentityError::Name),
            ("spiffe://a/millrace/copier/x%2f", IdentityError::Name),
            ("spiffe://a/millrace/copier/x/y", IdentityError::Path),
        ] {
            assert_eq!(uri.parse::<Identity>(), Err(why), "{uri}");
        }
        let long = format!("spiffe://a/millrace/copier/{}", "x".repeat(MAX_URI));
        assert_eq!(long.parse::<Identity>(), Err(IdentityError::NotSpiffe));
    }

    #[test]
    fn a_name_binds_the_names_that_begin_with_it() {
        let of = |uri: &str| uri.parse::<Identity>().unwrap();
        let live1 = of("spiffe://a/millrace/copier/live1");
        for good in ["live1", "live1/198.18.0.1:80", "live1:80+443"] {
            assert!(live1.may_be_called(good), "{good}");
        }
        for bad in ["live10", "live", "", "live2/live1", "Live1", "live1-b"] {
            assert!(!live1.may_be_called(bad), "{bad}");
        }
        assert!(of("spiffe://a/millrace/copier").may_be_called("anything"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_fault(text in "(spiffe://)?[a-z./%]{0,20}(/millrace/copier)?.{0,20}") {
            if let Ok(identity) = text.parse::<Identity>() {
                prop_assert_eq!(identity.to_string(), text);
            }
        }
    }
}
