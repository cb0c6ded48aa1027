//! Values of the live server, and what the target has in their place.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

/// The longest value that is known, in bytes.
pub(super) const LONGEST_VALUE: usize = 8 * 1024;
/// What one session knows.
const MOST_OF_SESSION: Most = Most {
    values: 256,
    bytes: 256 * 1024,
};
/// What all sessions of a module know together.
const MOST_SHARED: Most = Most {
    values: 200_000,
    bytes: 64 << 20,
};

#[derive(Clone, Copy, Debug)]
struct Most {
    values: usize,
    bytes: usize,
}

/// Pairs of values, of which the oldest go first where there are too many.
struct Pairs {
    most: Most,
    pairs: HashMap<Arc<[u8]>, Vec<u8>>,
    order: VecDeque<Arc<[u8]>>,
    /// Hashes of the live server's values, with how many pairs have them.
    lives: HashMap<u64, u32>,
    hasher: RandomState,
    bytes: usize,
}

impl Pairs {
    fn new(most: Most) -> Self {
        Self {
            most,
            pairs: HashMap::new(),
            order: VecDeque::new(),
            lives: HashMap::new(),
            hasher: RandomState::new(),
            bytes: 0,
        }
    }

    /// Whether a pair may have this value of the live server.
    fn knows(&self, live: &[u8]) -> bool {
        !self.lives.is_empty() && self.lives.contains_key(&self.hasher.hash_one(live))
    }

    fn forget(&mut self, key: &[u8]) {
        let hash = self.hasher.hash_one(live_of(key));
        if let Entry::Occupied(mut count) = self.lives.entry(hash) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn note(&mut self, key: Vec<u8>, value: Vec<u8>) {
        if let Some(known) = self.pairs.get_mut(key.as_slice()) {
            self.bytes = (self.bytes + value.len()).saturating_sub(known.len());
            *known = value;
        } else {
            let key: Arc<[u8]> = key.into();
            self.bytes += key.len() + value.len();
            let hash = self.hasher.hash_one(live_of(&key));
            *self.lives.entry(hash).or_default() += 1;
            self.order.push_back(key.clone());
            self.pairs.insert(key, value);
        }
        while self.pairs.len() > self.most.values || self.bytes > self.most.bytes {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            self.forget(&oldest);
            let value = self.pairs.remove(&oldest).unwrap_or_default();
            self.bytes = self.bytes.saturating_sub(oldest.len() + value.len());
        }
    }
}

/// What all sessions of a module know.
pub(super) struct Shared(Mutex<Pairs>);

// No value of it is shown.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(values)")
    }
}

impl Default for Shared {
    fn default() -> Self {
        Self(Mutex::new(Pairs::new(MOST_SHARED)))
    }
}

impl Shared {
    fn with<R>(&self, act: impl FnOnce(&mut Pairs) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where other sessions find a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope<'a> {
    /// Nowhere.
    Session,
    /// Where they are this user's. All sessions are nobody's: `b""`.
    User(&'a [u8]),
}

/// What one session knows.
pub(super) struct Book {
    own: Pairs,
    shared: Arc<Shared>,
}

impl Book {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            own: Pairs::new(MOST_OF_SESSION),
            shared,
        }
    }

    /// What the session itself knows, in bytes.
    pub(super) fn memory(&self) -> usize {
        let each = size_of::<(Arc<[u8]>, Vec<u8>)>() + 1;
        self.own.bytes
            + self.own.pairs.capacity() * each
            + self.own.order.capacity() * size_of::<Arc<[u8]>>()
    }

    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.own.pairs.is_empty() && self.shared.with(|pairs| pairs.pairs.is_empty())
    }

    /// Whether this value of the live server may be known, by any rule.
    pub(super) fn knows(&self, live: &[u8]) -> bool {
        self.own.knows(live) || self.shared.with(|pairs| pairs.knows(live))
    }

    /// What the target has in place of the live value of a rule.
    pub(super) fn find(&self, rule: usize, scope: Scope<'_>, live: &[u8]) -> Option<Vec<u8>> {
        let own = self.own.pairs.get(key(rule, &[], live).as_slice()).cloned();
        match scope {
            Scope::Session => own,
            Scope::User(user) => own.or_else(|| {
                let key = key(rule, user, live);
                self.shared
                    .with(|pairs| pairs.pairs.get(key.as_slice()).cloned())
            }),
        }
    }

    /// The target has this in its place. What could end a line of a head is not taken.
    pub(super) fn note(&mut self, rule: usize, scope: Scope<'_>, live: &[u8], target: &[u8]) {
        if target.len() > LONGEST_VALUE || target.iter().any(u8::is_ascii_control) {
            return;
        }
        if let Scope::User(user) = scope {
            let key = key(rule, user, live);
            self.shared.with(|pairs| pairs.note(key, target.to_vec()));
        }
        self.own.note(key(rule, &[], live), target.to_vec());
    }
}

fn key(rule: usize, user: &[u8], live: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(16 + user.len() + live.len());
    key.extend_from_slice(&(rule as u64).to_le_bytes());
    key.extend_from_slice(&(user.len() as u64).to_le_bytes());
    key.extend_from_slice(user);
    key.extend_from_slice(live);
    key
}

/// The value of a key.
fn live_of(key: &[u8]) -> &[u8] {
    let user = key.get(8..16).and_then(|it| it.try_into().ok());
    let user = user.map_or(0, u64::from_le_bytes);
    let from = usize::try_from(user).map_or(usize::MAX, |user| user.saturating_add(16));
    key.get(from..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_one_user_know_the_same() {
        let shared = Arc::new(Shared::default());
        let (mut one, mut other) = (Book::new(shared.clone()), Book::new(shared));
        one.note(0, Scope::User(b"ann"), b"L", b"T");
        one.note(1, Scope::Session, b"L", b"own");
        assert!(!other.is_empty());
        assert_eq!(other.find(0, Scope::User(b"ann"), b"L").unwrap(), b"T");
        assert_eq!(other.find(0, Scope::User(b"bob"), b"L"), None);
        assert_eq!(other.find(0, Scope::Session, b"L"), None);
        assert_eq!(other.find(1, Scope::User(b""), b"L"), None);
        assert_eq!(one.find(1, Scope::Session, b"L").unwrap(), b"own");
        assert!(one.knows(b"L") && other.knows(b"L"));
        assert!(!one.knows(b"T") && !other.knows(b"annL"));
        // What a session has heard itself goes first.
        other.note(0, Scope::User(b"ann"), b"L", b"T2");
        assert_eq!(one.find(0, Scope::User(b"ann"), b"L").unwrap(), b"T");
    }

    #[test]
    fn the_oldest_values_make_room() {
        let mut book = Book::new(Arc::default());
        for number in 0..10_000_u32 {
            let value = vec![b'x'; usize::try_from(number).unwrap() % LONGEST_VALUE];
            book.note(0, Scope::Session, &number.to_le_bytes(), &value);
            assert!(book.own.bytes <= MOST_OF_SESSION.bytes);
            assert!(book.own.pairs.len() <= MOST_OF_SESSION.values);
            assert_eq!(book.own.pairs.len(), book.own.order.len());
            assert!(book.own.lives.len() <= book.own.pairs.len());
            assert!(book.knows(&number.to_le_bytes()));
        }
        assert_eq!(book.find(0, Scope::Session, &0_u32.to_le_bytes()), None);
        assert!(
            book.find(0, Scope::Session, &9_999_u32.to_le_bytes())
                .is_some()
        );
    }
}
