//! How copier and interceptor speak to each other while they are measured.

use std::path::PathBuf;

use clap::Args;
use millrace_lab::{Result, Stage, binary};

use super::programs::COPIER;

/// Part of the command line of a benchmark.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Options {
    /// Mutual TLS between copier and interceptor, as in production, in place of plain text
    #[arg(long)]
    tls: bool,
}

/// Plain text, or the certificates of both sides.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    certificates: Option<PathBuf>,
}

impl Channel {
    /// Makes the certificates that it takes.
    pub(super) fn new(stage: &Stage, options: Options) -> Result<Self> {
        if !options.tls {
            return Ok(Self { certificates: None });
        }
        let host = &stage.assistant.host;
        let directory = host.file("certs");
        let shown = directory.display().to_string();
        let roles = ["--for", "copier", "--for", "interceptor"];
        let arguments = [&["certs", "--dir", &shown][..], &roles].concat();
        host.check(binary(COPIER)?, &arguments)?;
        Ok(Self {
            certificates: Some(directory),
        })
    }

    /// The options of the daemon that has this role.
    pub(super) fn options(&self, role: &str) -> Vec<String> {
        let Some(directory) = &self.certificates else {
            return vec!["--insecure".to_owned()];
        };
        let file = |name: String| directory.join(name).display().to_string();
        [
            ("--ca", "ca.pem".to_owned()),
            ("--cert", format!("{role}.pem")),
            ("--key", format!("{role}-key.pem")),
        ]
        .into_iter()
        .flat_map(|(option, name)| [option.to_owned(), file(name)])
        .collect()
    }
}
