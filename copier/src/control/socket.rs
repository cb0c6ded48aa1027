//! The Unix socket over which a running copier takes commands. Its permissions say who may give them: the user that
//! started the copier, and root.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use axum::Router;
use millrace_daemon::exit::ExitError;
use rustix::fs::{Mode, fchmod};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use tokio::runtime::Handle;

/// Where daemons keep what lives as long as they do (hier(7)), unless systemd says where (systemd.exec(5)).
const RUNTIME_DIRECTORY: &str = "/run/millrace";
/// Commands that wait to be accepted.
const BACKLOG: i32 = 16;

/// The socket of the copier whose admin port is `port`, in this process's network namespace: copiers in others may
/// have the same port and see the same files.
pub fn default_path(port: u16) -> PathBuf {
    let directory = std::env::var_os("RUNTIME_DIRECTORY");
    // systemd.exec(5): several are separated by colons.
    let first = directory.and_then(|list| std::env::split_paths(&list).next());
    let directory = first.unwrap_or_else(|| PathBuf::from(RUNTIME_DIRECTORY));
    let namespace = std::fs::metadata("/proc/self/ns/net").map_or(0, |file| file.ino());
    directory.join(format!("copier-{port}@{namespace}.sock"))
}

/// Admin ports of the copiers of this network namespace, by the sockets that they listen at, in order.
pub fn instances() -> Vec<u16> {
    let some = default_path(0);
    let Some((directory, name)) = some
        .parent()
        .zip(some.file_name().and_then(|name| name.to_str()))
    else {
        return Vec::new();
    };
    // The port stands in place of the first zero.
    let Some((before, behind)) = name.split_once('0') else {
        return Vec::new();
    };
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let port = |file: std::fs::DirEntry| {
        let name = file.file_name().into_string().ok()?;
        let port = name.strip_prefix(before)?.strip_suffix(behind)?;
        // One that was killed has left its file.
        let gone = UnixStream::connect(file.path())
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        port.parse().ok().filter(|_| !gone)
    };
    let mut ports: Vec<u16> = files.filter_map(port).collect();
    ports.sort_unstable();
    ports
}

/// The socket, listening. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct CommandSocket {
    listener: UnixListener,
    file: File,
}

/// Its file, and which one that was made.
#[derive(Debug)]
struct File {
    path: PathBuf,
    made: Option<(u64, u64)>,
}

impl File {
    fn identity(path: &Path) -> Option<(u64, u64)> {
        let file = std::fs::symlink_metadata(path).ok()?;
        Some((file.dev(), file.ino()))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Another copier's may be in its place.
        if Self::identity(&self.path) == self.made {
            // One that cannot be removed any more, by a user without rights there, is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl CommandSocket {
    /// Opens `named`, or else the one for admin port `port`. Where that cannot be made, the copier runs without, and
    /// the log says so.
    ///
    /// # Errors
    /// When `named` cannot be opened (exit code 1).
    pub fn open(named: Option<&Path>, port: u16) -> Result<Option<Self>, ExitError> {
        let path = named.map_or_else(|| default_path(port), Path::to_owned);
        match Self::at(&path) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if named.is_some() => Err(ExitError::start(format!(
                "cannot take commands at {} (--control): {error}",
                path.display()
            ))),
            Err(error) => {
                tracing::warn!(
                    "`ctl` cannot give this copier commands, since {} cannot be made: {error}; name another file \
                     with --control",
                    path.display()
                );
                Ok(None)
            }
        }
    }

    fn at(path: &Path) -> io::Result<Self> {
        let path = &std::path::absolute(path)?;
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::other("another copier takes commands there"));
        }
        match std::fs::symlink_metadata(path) {
            // Of a copier that was killed.
            Ok(left) if std::os::unix::fs::FileTypeExt::is_socket(&left.file_type()) => {
                std::fs::remove_file(path)?;
            }
            Ok(_) => return Err(io::Error::other("there is a file that is no socket")),
            Err(_) => {}
        }
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        // unix(7): the file gets the mode of the socket, so that there is no moment at which others may connect.
        fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        let file = File {
            made: File::identity(path),
            path: path.to_owned(),
        };
        listen(&socket, BACKLOG)?;
        let listener = UnixListener::from(socket);
        Ok(Self { listener, file })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Answers with `routes` for as long as the runtime lives.
    ///
    /// # Errors
    /// When the runtime cannot take the socket (exit code 1).
    pub fn serve(self, routes: Router, runtime: &Handle) -> Result<(), ExitError> {
        let _inside = runtime.enter();
        let Self { listener, file } = self;
        let listener = tokio::net::UnixListener::from_std(listener)
            .map_err(|error| ExitError::caused("cannot take commands", &error))?;
        runtime.spawn(async move {
            let _file = file;
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!("no more commands are taken: {error}");
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("millrace-{name}-{}", std::process::id()))
    }

    #[test]
    fn only_its_owner_may_use_it_and_it_goes_with_the_copier() {
        let path = path("control");
        let socket = CommandSocket::open(Some(&path), 1).unwrap().unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let second = CommandSocket::open(Some(&path), 1).unwrap_err().to_string();
        assert!(second.contains("another copier"), "{second}");
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_killed_copier_left_is_replaced_and_nothing_else() {
        let path = path("left");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(CommandSocket::open(Some(&path), 1).unwrap().unwrap());
        std::fs::write(&path, "precious").unwrap();
        let refused = CommandSocket::open(Some(&path), 1).unwrap_err().to_string();
        assert!(refused.contains("no socket"), "{refused}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();
    }
}
