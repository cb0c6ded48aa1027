//! Room on the file system: a recorder must not fill the disk of a live server.

use std::fmt;
use std::io;
use std::path::Path;
use std::str::FromStr;

/// How much of a file system stays free.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MinFree {
    /// This part of it, 0 to 1.
    Share(f64),
    /// So many MB (of 1,048,576 bytes).
    Megabytes(u64),
}

impl MinFree {
    /// How many bytes are missing, where this is and for a user without privileges, to have so much
    /// free; none on a file system that says nothing of its size.
    ///
    /// # Errors
    /// What the system says.
    pub fn missing(self, place: &Path) -> io::Result<u64> {
        let room = rustix::fs::statvfs(place)?;
        if room.f_blocks == 0 {
            return Ok(0);
        }
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        let wanted = match self {
            Self::Share(share) => {
                let all = room.f_blocks.saturating_mul(room.f_frsize);
                (share * all as f64) as u64
            }
            Self::Megabytes(megabytes) => megabytes.saturating_mul(1 << 20),
        };
        Ok(wanted.saturating_sub(free))
    }
}

/// How many files of these lengths, from the first on, hold the bytes that are missing; the last is
/// none of them. `None`: all together do not.
pub fn how_many(missing: u64, lengths: impl ExactSizeIterator<Item = u64>) -> Option<usize> {
    let older = lengths.len().saturating_sub(1);
    let mut held = 0u64;
    for (index, length) in lengths.take(older).enumerate() {
        held = held.saturating_add(length);
        if held >= missing {
            return Some(index + 1);
        }
    }
    None
}

impl FromStr for MinFree {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}': write a number of MB such as 500, or a percentage of the file system \
                 from 0% to 99%"
            )
        };
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse::<f64>() {
                Ok(percent) if (0.0..=99.0).contains(&percent) => Ok(Self::Share(percent / 100.0)),
                Ok(_) | Err(_) => Err(wrong()),
            },
            None => text.parse().map(Self::Megabytes).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for MinFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share(share) => write!(f, "{}%", share * 100.0),
            Self::Megabytes(megabytes) => write!(f, "{megabytes} MB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn megabytes_and_percentages_are_read_and_nonsense_is_not() {
        assert_eq!("500".parse(), Ok(MinFree::Megabytes(500)));
        assert_eq!("5%".parse(), Ok(MinFree::Share(0.05)));
        for text in ["", "%", "-1", "100%", "-1%", "nan%", "5 MB", "1.5"] {
            assert!(text.parse::<MinFree>().is_err(), "{text}");
        }
    }

    #[test]
    fn no_more_files_make_room_than_are_needed_and_never_the_last() {
        let of = |missing, lengths: &[u64]| how_many(missing, lengths.iter().copied());
        assert_eq!(of(1, &[10, 10, 10]), Some(1));
        assert_eq!(of(11, &[10, 10, 10]), Some(2));
        assert_eq!(of(21, &[10, 10, 10]), None);
        assert_eq!(of(1, &[10]), None);
        assert_eq!(of(1, &[]), None);
    }

    #[test]
    fn nothing_is_always_kept_and_more_than_there_is_never() {
        let directory = std::env::temp_dir();
        for (wanted, kept) in [
            (MinFree::Megabytes(0), true),
            (MinFree::Share(0.0), true),
            (MinFree::Megabytes(u64::MAX), false),
            (MinFree::Share(1.1), false),
        ] {
            let missing = wanted.missing(&directory).unwrap();
            assert_eq!(missing == 0, kept, "{wanted}");
        }
        assert!(MinFree::Share(0.0).missing(Path::new("/none")).is_err());
    }
}
