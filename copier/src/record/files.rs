//! The files of a recording: one, or one after the other with the oldest removed.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How files follow each other.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The file as the operator named it.
    pub path: PathBuf,
    /// A file that has so many bytes is followed by another.
    pub size: Option<u64>,
    /// So is one of this age.
    pub age: Option<Duration>,
    /// How many are kept.
    pub keep: Option<usize>,
}

/// The files.
#[derive(Debug)]
pub struct Files {
    rotation: Rotation,
    /// Number of the next file.
    next: u32,
    begun: Instant,
}

impl Files {
    /// No file yet.
    pub fn new(rotation: Rotation) -> Self {
        Self {
            rotation,
            next: 0,
            begun: Instant::now(),
        }
    }

    /// Whether there is more than one.
    pub const fn is_numbered(&self) -> bool {
        self.rotation.size.is_some() || self.rotation.age.is_some()
    }

    /// Whether the next file would overwrite nothing: it has another number, or the present one was
    /// moved away.
    pub fn can_follow(&self) -> bool {
        self.is_numbered() || !self.rotation.path.exists()
    }

    /// Whether a file with so many bytes is to be followed by another.
    pub fn is_full(&self, written: u64) -> bool {
        let large = self.rotation.size.is_some_and(|size| written >= size);
        let old = self
            .rotation
            .age
            .is_some_and(|age| self.begun.elapsed() >= age);
        large || old
    }

    /// When the present file will be old.
    pub fn old_in(&self) -> Option<Duration> {
        let age = self.rotation.age?;
        Some(age.saturating_sub(self.begun.elapsed()))
    }

    /// Creates the next file. A numbered one goes on behind those that exist; one without a number
    /// is overwritten. Files beyond the number to keep are removed.
    ///
    /// # Errors
    /// The path, and what the system says.
    pub fn create(&mut self) -> Result<(PathBuf, BufWriter<File>), (PathBuf, io::Error)> {
        self.begun = Instant::now();
        let path = if self.is_numbered() {
            let existing = self.existing();
            let last = existing.last().map(|(number, _)| *number);
            let number = self
                .next
                .max(last.map_or(1, |number| number.saturating_add(1)));
            self.next = number.saturating_add(1);
            if let Some(keep) = self.rotation.keep {
                // The one that is about to be written counts.
                let surplus = (existing.len() + 1).saturating_sub(keep);
                for (_, old) in existing.iter().take(surplus) {
                    if let Err(error) = std::fs::remove_file(old) {
                        tracing::warn!("cannot remove {} (--keep): {error}", old.display());
                    }
                }
            }
            numbered(&self.rotation.path, number)
        } else {
            self.rotation.path.clone()
        };
        match File::create(&path) {
            Ok(file) => Ok((path, BufWriter::with_capacity(1 << 20, file))),
            Err(error) => Err((path, error)),
        }
    }

    /// The numbered files that exist, in their order.
    fn existing(&self) -> Vec<(u32, PathBuf)> {
        let directory = match self.rotation.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            Some(_) | None => Path::new("."),
        };
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name();
                let number = number_of(&self.rotation.path, name.to_str()?)?;
                Some((number, entry.path()))
            })
            .collect();
        found.sort();
        found
    }
}

/// `web.pcapng` with number 7 is `web-000007.pcapng`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match path.extension() {
        Some(extension) => format!("{stem}-{number:06}.{}", extension.to_string_lossy()),
        None => format!("{stem}-{number:06}"),
    };
    path.with_file_name(name)
}

fn number_of(path: &Path, name: &str) -> Option<u32> {
    let stem = path.file_stem()?.to_str()?;
    let rest = name.strip_prefix(stem)?.strip_prefix('-')?;
    let digits = match path.extension() {
        Some(extension) => rest.strip_suffix(extension.to_str()?)?.strip_suffix('.')?,
        None => rest,
    };
    let ours = digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_behind_what_exists_and_the_oldest_are_removed() {
        let directory = std::env::temp_dir().join(format!("millrace-files-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        for name in ["w-000004.pcapng", "w-x.pcapng", "w-000005.pcap", "w.pcapng"] {
            std::fs::write(directory.join(name), name).unwrap();
        }
        let mut files = Files::new(Rotation {
            path: directory.join("w.pcapng"),
            size: Some(100),
            age: None,
            keep: Some(2),
        });
        let mut names = Vec::new();
        for _ in 0..3 {
            let (path, _) = files.create().unwrap();
            names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
        assert_eq!(
            names,
            ["w-000005.pcapng", "w-000006.pcapng", "w-000007.pcapng"]
        );
        let mut left: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let expected = [
            "w-000005.pcap",
            "w-000006.pcapng",
            "w-000007.pcapng",
            "w-x.pcapng",
            "w.pcapng",
        ];
        assert_eq!(left, expected);
        assert!(files.is_full(100) && !files.is_full(99));
        assert!(files.can_follow());
        let one = |path: &str| {
            Files::new(Rotation {
                path: directory.join(path),
                size: None,
                age: None,
                keep: None,
            })
        };
        assert!(!one("w.pcapng").can_follow() && one("moved.pcapng").can_follow());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
