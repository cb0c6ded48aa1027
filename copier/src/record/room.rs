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
    /// Whether so much is free for a user without privileges where this directory is.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_kept(self, directory: &Path) -> io::Result<bool> {
        let room = rustix::fs::statvfs(directory)?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        Ok(match self {
            Self::Share(share) => room.f_bavail as f64 >= share * room.f_blocks as f64,
            Self::Megabytes(megabytes) => free >> 20 >= megabytes,
        })
    }
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
    fn nothing_is_always_kept_and_more_than_there_is_never() {
        let directory = std::env::temp_dir();
        for (wanted, kept) in [
            (MinFree::Megabytes(0), true),
            (MinFree::Share(0.0), true),
            (MinFree::Megabytes(u64::MAX), false),
            (MinFree::Share(1.1), false),
        ] {
            assert_eq!(wanted.is_kept(&directory).unwrap(), kept, "{wanted}");
        }
        assert!(MinFree::Share(0.0).is_kept(Path::new("/none")).is_err());
    }
}
