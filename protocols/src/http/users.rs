//! Whose requests are, for rules that tell users apart.

use sha2::{Digest, Sha256};

use super::book::Scope;
use super::head::Head;
use super::settings::TokenRule;
use super::text::Key;

/// Of what names a user in more bytes than these a digest is kept.
const LONGEST_NAME: usize = 64;

/// Whose a request is, for each rule that tells users apart.
#[derive(Clone, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Debug))]
pub(super) struct Users(Vec<(usize, Vec<u8>)>);

impl Users {
    pub(super) fn of(head: &Head<'_>, rules: &[TokenRule]) -> Self {
        if rules.is_empty() {
            return Self::default();
        }
        let rules = rules.iter().enumerate();
        let users = rules.filter_map(|(number, rule)| {
            let user = match rule.key.as_ref()? {
                Key::Header(name) => head.values(name.as_str()).next()?.to_vec(),
                Key::Cookie(name) => cookie(head, name.as_str().as_bytes())?,
            };
            Some((number, short(&user)))
        });
        Self(users.collect())
    }

    /// In bytes.
    pub(super) fn memory(&self) -> usize {
        let each = size_of::<(usize, Vec<u8>)>();
        let names = self.0.iter().map(|(_, name)| name.capacity());
        self.0.capacity() * each + names.sum::<usize>()
    }

    pub(super) fn scope(&self, rules: &[TokenRule], number: usize) -> Scope<'_> {
        let rule = rules.get(number).filter(|rule| rule.is_shared());
        match rule.map(|rule| &rule.key) {
            None => Scope::Session,
            Some(None) => Scope::User(b""),
            Some(Some(_)) => {
                let user = self.0.iter().find(|(it, _)| *it == number);
                user.map_or(Scope::Session, |(_, user)| Scope::User(user))
            }
        }
    }
}

fn cookie(head: &Head<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let mut pairs = head
        .values("Cookie")
        .flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let value = pair.trim_ascii_start().strip_prefix(name)?;
        value.strip_prefix(b"=").map(<[u8]>::to_vec)
    })
}

/// No more than so long. A digest begins as no value of a field does.
fn short(name: &[u8]) -> Vec<u8> {
    match name.len() > LONGEST_NAME {
        true => [b"\0", Sha256::digest(name).as_slice()].concat(),
        false => name.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::HeadReader;
    use super::super::settings::Settings;
    use super::*;

    #[test]
    fn long_names_of_users_are_told_apart_and_not_kept() {
        let rule = "[[token]]\nfrom = 'json:a'\nkey = ";
        let rules = format!("{rule}'header:A'\n{rule}'cookie:a'");
        let rules = Settings::parse(&rules).unwrap().token;
        let users = |name: &str| {
            let text = format!("GET / HTTP/1.1\r\nA: {name}\r\nCookie: a={name}\r\n\r\n");
            let (_, head) = HeadReader::default().read(text.as_bytes()).unwrap();
            Users::of(&head.unwrap(), &rules)
        };
        let long = "x".repeat(30_000);
        assert_eq!(users(&long), users(&long));
        assert_ne!(users(&long), users(&format!("{long}y")));
        assert!(users(&long).memory() < 300);
        assert!(users("ann").scope(&rules, 0) == Scope::User(b"ann"));
        assert!(users("ann").scope(&rules, 1) == Scope::User(b"ann"));
    }
}
