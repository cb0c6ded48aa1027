//! Names and passwords at the target: those of the live service are seldom good there.
//!
//! A file has one account on each line, as TCPCopy's `-u` has them between commas: `user@password`. The name ends at the
//! first `@`, so that a password may hold more of them. Empty lines, and lines that begin with `#`, say nothing.

use std::collections::BTreeMap;
use std::fmt;

/// Accounts of the target, by name. Passwords are never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Accounts(BTreeMap<String, String>);

/// Why a file of accounts is refused. No password is among it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountsError {
    /// An account without an `@`, or without a name; in a file, in this line.
    #[error("account {0} is not USER@PASSWORD")]
    Form(usize),
    /// The same name a second time.
    #[error("account {line}: {user:?} has a password already")]
    Twice {
        /// Its place, from 1; in a file, its line.
        line: usize,
        /// The name.
        user: String,
    },
}

impl Accounts {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, AccountsError> {
        let is_account = |line: &str| !line.trim().is_empty() && !line.starts_with('#');
        Self::collect((1..).zip(text.lines()).filter(|(_, line)| is_account(line)))
    }

    /// Reads accounts between commas.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn parse_list(text: &str) -> Result<Self, AccountsError> {
        let accounts = (1..).zip(text.split(','));
        Self::collect(accounts.filter(|(_, account)| !account.is_empty()))
    }

    fn collect<'a>(all: impl Iterator<Item = (usize, &'a str)>) -> Result<Self, AccountsError> {
        let mut accounts = BTreeMap::new();
        for (number, line) in all {
            let account = line.split_once('@').filter(|(user, _)| !user.is_empty());
            let (user, password) = account.ok_or(AccountsError::Form(number))?;
            let before = accounts.insert(user.to_owned(), password.to_owned());
            if before.is_some() {
                return Err(AccountsError::Twice {
                    line: number,
                    user: user.to_owned(),
                });
            }
        }
        Ok(Self(accounts))
    }

    /// The password of an account.
    pub fn password(&self, user: &str) -> Option<&str> {
        self.0.get(user).map(String::as_str)
    }

    /// The name of the account, if there is but one.
    pub fn only(&self) -> Option<&str> {
        let mut users = self.0.keys();
        let user = users.next()?;
        users.next().is_none().then_some(user)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_account_and_its_password_may_hold_anything() {
        let text = "# of the test cluster\n\ndefault@p@ss#word \napp@\n";
        let accounts = Accounts::parse(text).unwrap();
        assert_eq!(accounts.password("default"), Some("p@ss#word "));
        assert_eq!(accounts.password("app"), Some(""));
        assert_eq!(accounts.password("other"), None);
        assert_eq!(accounts.only(), None);
        assert_eq!(Accounts::parse("app@").unwrap().only(), Some("app"));
        assert!(!format!("{accounts:?}").contains("p@ss"));
    }

    #[test]
    fn a_list_has_commas_between_accounts() {
        let accounts = Accounts::parse_list("a@b,app@p@w,").unwrap();
        assert_eq!(accounts.password("a"), Some("b"));
        assert_eq!(accounts.password("app"), Some("p@w"));
        assert_eq!(
            Accounts::parse_list("a@b,secret"),
            Err(AccountsError::Form(2))
        );
        assert!(Accounts::parse_list("").unwrap().is_empty());
    }

    #[test]
    fn wrong_lines_are_named_and_not_shown() {
        assert_eq!(
            Accounts::parse("a@b\nsecret\n"),
            Err(AccountsError::Form(2))
        );
        assert_eq!(Accounts::parse("@b"), Err(AccountsError::Form(1)));
        let twice = Accounts::parse("a@b\na@secret").unwrap_err().to_string();
        assert_eq!(twice, "account 2: \"a\" has a password already");
    }
}
