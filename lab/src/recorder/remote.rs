//! A recorder that runs as a program on a host of a lab.

use std::path::PathBuf;
use std::time::Duration;

use super::RecorderConfig;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::process::Process;
use crate::program::binary;
use crate::records::RecordedStreams;

/// How long it may take to start, and to write its last records.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `millrace-lab recorder`.
#[derive(Debug)]
pub struct Recorder {
    process: Process,
    out: PathBuf,
}

impl Recorder {
    /// Starts one on a host and waits until it listens on all of its ports. Where `config.out` is empty, the
    /// records go to a file in the lab's directory.
    ///
    /// # Errors
    /// When the binary `millrace-lab` has not been built or a port is in use.
    pub fn start(host: &Host, config: &RecorderConfig) -> Result<Self> {
        let out = if config.out.as_os_str().is_empty() {
            host.file("records.json")
        } else {
            config.out.clone()
        };
        let arguments = arguments(config, &out);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let program = binary("millrace-lab")?;
        let mut process = host.spawn(program, &arguments, &[], &host.file("recorder.log"))?;
        let ports = [&config.http[..], &config.resp, &config.greeting].concat();
        if let Err(error) = host.wait_listening(&ports, PATIENCE) {
            if process.is_running() {
                return Err(error);
            }
            return Err(Error::Unsupported(format!(
                "the recorder on {}: {}",
                host.name(),
                process.log()
            )));
        }
        Ok(Self { process, out })
    }

    /// The program.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// What it has recorded so far: connections that have ended.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn records(&self) -> Result<RecordedStreams> {
        RecordedStreams::load(&self.out)
    }

    /// Stops it and returns all of its records, those of open connections included.
    ///
    /// # Errors
    /// When it does not stop or its file cannot be read.
    pub fn stop(mut self) -> Result<RecordedStreams> {
        let status = self.process.terminate(PATIENCE)?;
        if !status.success() {
            return Err(Error::Command {
                command: self.process.label().to_owned(),
                status: status.to_string(),
                message: self.process.log(),
            });
        }
        self.records()
    }
}

fn arguments(config: &RecorderConfig, out: &std::path::Path) -> Vec<String> {
    let mut arguments = vec!["recorder".to_owned(), format!("--out={}", out.display())];
    let ports = [
        ("http", &config.http),
        ("resp", &config.resp),
        ("greeting", &config.greeting),
    ];
    for (name, ports) in ports {
        arguments.extend(ports.iter().map(|port| format!("--{name}={port}")));
    }
    let manners = config.manners;
    if !manners.delay.is_zero() {
        arguments.push(format!("--delay={}", manners.delay.as_millis()));
    }
    arguments.extend(
        manners
            .reset_every
            .map(|every| format!("--reset-every={every}")),
    );
    arguments.extend(
        manners
            .close_idle
            .map(|idle| format!("--close-idle={}", idle.as_millis())),
    );
    arguments
}
