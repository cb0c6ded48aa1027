//! How copier and interceptor speak to each other while they are measured.

use std::path::PathBuf;

use clap::Args;
use millrace_lab::{Result, Stage, binary};

use super::programs::COPIER;
use crate::demo::say;

/// Part of the command line of a benchmark.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ChannelOptions {
    /// Mutual TLS between copier and interceptor, as in production, in place of plain text
    #[arg(long)]
    tls: bool,
}

/// A side of it, by the name that its certificate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Copier,
    Interceptor,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Copier => "copier",
            Self::Interceptor => "interceptor",
        }
    }
}

/// The whole of it.
#[derive(Clone, Debug)]
pub(super) enum Channel {
    /// Without authentication.
    Plain,
    /// With the certificates of both sides.
    Tls { directory: PathBuf },
}

impl Channel {
    /// With `--tls`, makes a CA and the certificates of both sides, and says so to the reader of figures.
    pub(super) fn new(stage: &Stage, options: ChannelOptions) -> Result<Self> {
        if !options.tls {
            return Ok(Self::Plain);
        }
        let host = &stage.assistant.host;
        let directory = host.file("certs");
        let shown = directory.display().to_string();
        let sides = [Side::Copier, Side::Interceptor].map(|side| ["--for", side.name()]);
        let arguments = [&["certs", "--dir", &shown][..], &sides.concat()].concat();
        host.check(binary(COPIER)?, &arguments)?;
        say("copier and interceptor speak with mutual TLS");
        Ok(Self::Tls { directory })
    }

    /// Part of the command line of the daemon on this side.
    pub(super) fn arguments(&self, side: Side) -> Vec<String> {
        let Self::Tls { directory } = self else {
            return vec!["--insecure".to_owned()];
        };
        let side = side.name();
        [
            ("--ca", "ca.pem".to_owned()),
            ("--cert", format!("{side}.pem")),
            ("--key", format!("{side}-key.pem")),
        ]
        .into_iter()
        .flat_map(|(option, name)| {
            [
                option.to_owned(),
                directory.join(name).display().to_string(),
            ]
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_shows_its_own_certificate_or_none() {
        assert_eq!(Channel::Plain.arguments(Side::Copier), ["--insecure"]);
        let directory = PathBuf::from("/certs");
        let tls = Channel::Tls { directory }.arguments(Side::Interceptor);
        let expected =
            "--ca /certs/ca.pem --cert /certs/interceptor.pem --key /certs/interceptor-key.pem";
        assert_eq!(tls.join(" "), expected);
    }
}
