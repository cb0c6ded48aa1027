//! Kernel settings under /proc/sys/net, of the network namespace that this process is in.

use std::io;
use std::path::{Path, PathBuf};

/// Reads a setting; the key has slashes: `net/ipv4/conf/all/rp_filter`.
pub(super) fn read(key: &str) -> io::Result<String> {
    let text = std::fs::read_to_string(file(key)?)?;
    Ok(text.trim().to_owned())
}

/// Writes a setting.
pub(super) fn write(key: &str, value: &str) -> io::Result<()> {
    std::fs::write(file(key)?, value)
}

/// Keys come from a file too: they must not lead anywhere else.
fn file(key: &str) -> io::Result<PathBuf> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !key.starts_with("net/") || !key.split('/').all(plain) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("'{key}' is not a network setting"),
        ));
    }
    Ok(Path::new("/proc/sys").join(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_network_settings_are_touched() {
        assert!(read("net/ipv4/ip_forward").is_ok());
        for key in [
            "kernel/hostname",
            "net/../kernel/hostname",
            "net//x",
            "/etc/passwd",
        ] {
            assert_eq!(
                read(key).unwrap_err().kind(),
                io::ErrorKind::InvalidInput,
                "{key}"
            );
        }
    }
}
