//! Files that are no recordings: what they are, as far as their first bytes tell, and what to do.

use std::fmt;

/// So many bytes tell: the magic of tar stands at 257.
pub(super) const BEGINNING: usize = 512;
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Files whose first bytes name them.
const KNOWN: [(&[u8], &str); 9] = [
    (
        b"BZh",
        "compressed by bzip2: `bzip2 -dc FILE | millrace-copier inspect -`, or unpack it before",
    ),
    (
        b"PK\x03\x04",
        "a zip archive: unpack it, and name the recordings in it",
    ),
    (
        b"7z\xbc\xaf\x27\x1c",
        "a 7z archive: unpack it, and name the recordings in it",
    ),
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, not the file itself: `git lfs pull` fetches that",
    ),
    (
        b"snoop\0\0\0",
        "a recording of snoop: convert it with `editcap -F pcapng FILE NEW`",
    ),
    (
        b"<",
        "an HTML or XML page, not a recording: download the file itself",
    ),
    (
        b"{",
        "JSON, such as a HAR of a browser: it holds messages, and no packets that could be replayed",
    ),
    (
        b"1 ",
        "a file of GoReplay: it holds HTTP messages, and no packets that could be replayed",
    ),
    (b"\x7fELF", "a program, not a recording"),
];

/// What a file is that is no recording, in words that say what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    beginning: Vec<u8>,
}

impl Stranger {
    /// The file that begins like this.
    pub(super) fn new(beginning: &[u8]) -> Self {
        Self {
            beginning: beginning.to_vec(),
        }
    }

    fn known(&self) -> Option<&'static str> {
        let (at, magic) = TAR;
        if self
            .beginning
            .get(at..)
            .is_some_and(|rest| rest.starts_with(magic))
        {
            return Some("a tar archive: unpack it (`tar xf FILE`), and name the recordings in it");
        }
        let start = self
            .beginning
            .iter()
            .position(|byte| !byte.is_ascii_whitespace())?;
        let beginning = self.beginning.get(start..)?;
        let mut known = KNOWN.iter();
        let found = known.find(|(magic, _)| beginning.starts_with(magic));
        found.map(|(_, what)| *what).or_else(|| self.as_text())
    }

    /// What a text is.
    fn as_text(&self) -> Option<&'static str> {
        let text = std::str::from_utf8(&self.beginning).ok()?;
        let line = text.lines().next()?;
        if line.contains(" IP ") || line.contains(" IP6 ") || line.contains(" > ") {
            return Some(
                "what tcpdump prints, not what it records: record with `tcpdump -s 0 -w FILE`",
            );
        }
        let is_text = text.chars().all(|c| !c.is_control() || c.is_whitespace());
        is_text.then_some(
            "text, not a recording: if it is one in base64 or hexadecimal, decode it before",
        )
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(what) = self.known() {
            return f.write_str(what);
        }
        f.write_str("neither pcap nor pcapng (it begins with")?;
        for byte in self.beginning.iter().take(4) {
            write!(f, " {byte:02x}")?;
        }
        f.write_str("): convert it with `editcap -F pcapng FILE NEW`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_recordings_are_named() {
        let mut tar = b"./a".to_vec();
        tar.resize(257, 0);
        tar.extend(b"ustar\0");
        for (beginning, said) in [
            (&b"BZh91AY"[..], "bzip2 -dc"),
            (b"PK\x03\x04\x14", "zip archive"),
            (&tar, "tar xf"),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                "git lfs pull",
            ),
            (b"snoop\0\0\0\0", "editcap"),
            (b"\n<!DOCTYPE html>", "HTML"),
            (b"{\"log\": {}}", "HAR"),
            (
                b"1 932079936fa 1439818823587396305\nGET / HTTP/1.1",
                "GoReplay",
            ),
            (
                b"08:53:20.002 IP 198.18.1.10.4 > 198.18.2.10.80: Flags [S]\n",
                "tcpdump -s 0 -w",
            ),
            (b"1MOyoQIABAA=", "base64"),
            (&[1, 2, 3, 4, 5], "(it begins with 01 02 03 04)"),
        ] {
            let shown = Stranger::new(beginning).to_string();
            assert!(shown.contains(said) && !shown.contains('\n'), "{shown}");
        }
    }
}
