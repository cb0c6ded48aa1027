//! The files of a recording: one, or one after the other with the oldest removed.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufWriter};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::room::{self, MinFree};

/// For the owner alone: clients' passwords and cookies are in it.
const PRIVATE: u32 = 0o600;

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
    /// How much of the file system stays free.
    pub min_free: MinFree,
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
        let (path, file) = match self.is_numbered() {
            true => self.create_numbered()?,
            false => {
                let path = self.rotation.path.clone();
                match overwrite(&path) {
                    Ok(file) => (path, file),
                    Err(error) => return Err((path, error)),
                }
            }
        };
        Ok((path, BufWriter::with_capacity(1 << 20, file)))
    }

    fn create_numbered(&mut self) -> Result<(PathBuf, File), (PathBuf, io::Error)> {
        let existing = self.existing();
        if let Some(keep) = self.rotation.keep {
            // The one that is about to be written counts.
            let surplus = (existing.len() + 1).saturating_sub(keep);
            for (_, old) in existing.iter().take(surplus) {
                if let Err(error) = std::fs::remove_file(old) {
                    tracing::warn!("cannot remove {} (--keep): {error}", old.display());
                }
            }
        }
        let behind = match existing.last() {
            Some((last, path)) => last.checked_add(1).ok_or_else(|| {
                let used_up = "no number is left behind it: move it away, or record elsewhere";
                (path.clone(), io::Error::other(used_up))
            })?,
            None => 1,
        };
        let number = self.next.max(behind);
        self.next = number.saturating_add(1);
        let path = numbered(&self.rotation.path, number);
        // Never one that somebody else has made meanwhile.
        match new_file().create_new(true).open(&path) {
            Ok(file) => Ok((path, file)),
            Err(error) => Err((path, error)),
        }
    }

    /// Whether as much of the file system is free as shall be, or will be: where only some files are
    /// kept, the oldest make room, if all but the last hold as much as is missing. A file system may
    /// take its time to free them, so it is not asked again before the next look.
    pub fn has_room(&self) -> bool {
        let Rotation { keep, min_free, .. } = self.rotation;
        // A device or a pipe takes no room. Where the system does not say, writing will.
        let is_special = std::fs::metadata(&self.rotation.path).is_ok_and(|it| !it.is_file());
        let missing = min_free.missing(self.place());
        let missing = missing.ok().filter(|_| !is_special).unwrap_or(0);
        if missing == 0 {
            return true;
        }
        let existing = match keep {
            Some(_) => self.existing(),
            None => Vec::new(),
        };
        let len = |path: &PathBuf| std::fs::metadata(path).map_or(0, |it| it.len());
        let Some(count) = room::how_many(missing, existing.iter().map(|(_, path)| len(path)))
        else {
            return false;
        };
        for (_, oldest) in existing.iter().take(count) {
            if let Err(error) = std::fs::remove_file(oldest) {
                tracing::warn!("cannot remove {} (--min-free): {error}", oldest.display());
                return false;
            }
            tracing::warn!(
                "{} was removed: less than {min_free} was free (--min-free)",
                oldest.display()
            );
        }
        true
    }

    /// How much is to stay free, and where.
    pub fn min_free(&self) -> (MinFree, &Path) {
        (self.rotation.min_free, self.place())
    }

    /// Something on the file system that takes the packets: one file may be elsewhere than its name,
    /// behind a link or `/dev/stdout`.
    fn place(&self) -> &Path {
        let path = &self.rotation.path;
        match !self.is_numbered() && path.exists() {
            true => path,
            false => directory(path),
        }
    }

    /// The numbered files that exist, in their order.
    fn existing(&self) -> Vec<(u32, PathBuf)> {
        let entries = std::fs::read_dir(directory(&self.rotation.path));
        let entries = entries.into_iter().flatten().flatten();
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

/// Where a file is, or will be.
pub fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(PRIVATE);
    options
}

fn overwrite(path: &Path) -> io::Result<File> {
    let file = new_file().create(true).truncate(true).open(path)?;
    // One that was there already may be open to others; a pipe is not for this process to close.
    if file.metadata()?.is_file()
        && let Err(error) = file.set_permissions(Permissions::from_mode(PRIVATE))
    {
        tracing::warn!("{} may be open to other users: {error}", path.display());
    }
    Ok(file)
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

    /// A directory of the test's own, and files that go there.
    struct Scene(PathBuf);

    impl Scene {
        fn new(name: &str) -> Self {
            let name = format!("millrace-files-{name}-{}", std::process::id());
            let directory = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&directory).unwrap();
            Self(directory)
        }

        fn with(self, names: &[&str]) -> Self {
            for name in names {
                std::fs::write(self.0.join(name), name).unwrap();
            }
            self
        }

        fn files(&self, name: &str, size: Option<u64>, keep: Option<usize>) -> Files {
            Files::new(Rotation {
                path: self.0.join(name),
                size,
                age: None,
                keep,
                min_free: MinFree::Megabytes(0),
            })
        }

        fn names(&self) -> Vec<String> {
            let entries = std::fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn created(files: &mut Files) -> String {
        let (path, _) = files.create().unwrap();
        path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn numbers_go_on_behind_what_exists_and_the_oldest_are_removed() {
        let scene = Scene::new("rotate").with(&[
            "w-000004.pcapng",
            "w-x.pcapng",
            "w-000005.pcap",
            "w.pcapng",
        ]);
        let mut files = scene.files("w.pcapng", Some(100), Some(2));
        let names: Vec<_> = (0..3).map(|_| created(&mut files)).collect();
        assert_eq!(
            names,
            ["w-000005.pcapng", "w-000006.pcapng", "w-000007.pcapng"]
        );
        let expected = [
            "w-000005.pcap",
            "w-000006.pcapng",
            "w-000007.pcapng",
            "w-x.pcapng",
            "w.pcapng",
        ];
        assert_eq!(scene.names(), expected);
        assert!(files.is_full(100) && !files.is_full(99));
        assert!(files.can_follow());
        let one = |path: &str| scene.files(path, None, None);
        assert!(!one("w.pcapng").can_follow() && one("moved.pcapng").can_follow());
    }

    #[test]
    fn nobody_else_can_read_a_recording() {
        let scene = Scene::new("private").with(&["old.pcapng"]);
        for (name, size) in [("old.pcapng", None), ("new.pcapng", None), ("w", Some(1))] {
            let (path, _) = scene.files(name, size, None).create().unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, PRIVATE, "{}", path.display());
        }
    }

    #[test]
    fn behind_the_last_number_there_is_no_file_and_none_is_overwritten() {
        let scene = Scene::new("last").with(&["w-4294967294"]);
        let mut files = scene.files("w", Some(1), None);
        assert_eq!(created(&mut files), "w-4294967295");
        let (path, error) = files.create().unwrap_err();
        assert!(path.ends_with("w-4294967295"), "{}", path.display());
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(scene.names(), ["w-4294967294", "w-4294967295"]);
    }

    #[test]
    fn room_is_looked_for_where_the_packets_go_and_not_where_the_name_is() {
        let scene = Scene::new("link");
        let mut files = scene.files("w", None, None);
        files.rotation.min_free = MinFree::Megabytes(u64::MAX);
        assert!(!files.has_room());
        // A file system without a size.
        std::os::unix::fs::symlink("/proc/version", scene.0.join("w")).unwrap();
        assert!(files.has_room());
    }

    #[test]
    fn where_no_room_can_be_made_no_file_is_removed() {
        let scene = Scene::new("room").with(&["w-000001", "w-000002", "w-000003"]);
        let never = MinFree::Megabytes(u64::MAX);
        let mut files = scene.files("w", Some(1), None);
        assert!(files.has_room());
        files.rotation.min_free = never;
        assert!(!files.has_room(), "without --keep");
        files.rotation.keep = Some(3);
        assert!(!files.has_room());
        assert_eq!(scene.names().len(), 3, "to remove them would not help");
    }
}
