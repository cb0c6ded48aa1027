//! What `-i` names: devices to capture on, or files to replay.

use std::path::Path;

use millrace_capture::{Device, Source};
use millrace_daemon::exit::ExitError;

/// What was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// Devices; none: those that carry the live services.
    Devices(Vec<String>),
    /// Recordings.
    Files(Vec<Source>),
}

/// Tells devices from files: the name of a device is a device, a path that exists or `-` a file.
///
/// # Errors
/// A name that is both or neither, or names of both kinds.
pub fn classify(names: &[String]) -> Result<Inputs, ExitError> {
    let devices: Vec<String> = Device::list().into_iter().map(|one| one.name).collect();
    classify_among(names, &devices, |name| Path::new(name).exists())
}

fn classify_among(
    names: &[String],
    devices: &[String],
    exists: impl Fn(&str) -> bool,
) -> Result<Inputs, ExitError> {
    let mut files = Vec::new();
    let mut found = Vec::new();
    for name in names {
        if name.trim().is_empty() {
            return Err(ExitError::usage(
                "-i: a name is missing; write DEV or FILE, several separated by commas",
            ));
        }
        match (devices.contains(name), name == "-" || exists(name)) {
            (true, true) => {
                return Err(ExitError::usage(format!(
                    "-i {name}: both a device and a file have this name; write ./{name} for the file, \
                     or run the copier in another directory for the device"
                )));
            }
            (true, false) => found.push(name.clone()),
            (false, true) => files.push(Source::new(name)),
            // A path can be nothing but a file, and a file that is missing is a mistake.
            (false, false) if name.contains(['/', '.']) => {
                return Err(ExitError::usage(format!(
                    "-i {name}: there is no such file and no such device ({})",
                    devices.join(", ")
                )));
            }
            // Said with the names of the devices when it is opened.
            (false, false) => found.push(name.clone()),
        }
    }
    if files.is_empty() {
        return Ok(Inputs::Devices(found));
    }
    if let Some(device) = found.first() {
        return Err(ExitError::usage(format!(
            "-i: {device} is a device and {} a file: name either devices or files",
            files.first().map(Source::name).unwrap_or_default()
        )));
    }
    if files
        .iter()
        .filter(|file| **file == Source::StandardInput)
        .count()
        > 1
    {
        return Err(ExitError::usage("-i: - (standard input) is named twice"));
    }
    Ok(Inputs::Files(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classified(names: &[&str]) -> Result<Inputs, String> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let devices = ["eth0".to_owned(), "lo".to_owned(), "both".to_owned()];
        classify_among(&names, &devices, |name| {
            ["a.pcap", "./both", "both"].contains(&name)
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_device_is_a_device_and_a_path_is_a_file() {
        let devices =
            |names: &[&str]| Inputs::Devices(names.iter().map(ToString::to_string).collect());
        assert_eq!(classified(&[]).unwrap(), devices(&[]));
        assert_eq!(
            classified(&["eth0", "lo"]).unwrap(),
            devices(&["eth0", "lo"])
        );
        let files = vec![
            Source::new("a.pcap"),
            Source::StandardInput,
            Source::new("./both"),
        ];
        assert_eq!(
            classified(&["a.pcap", "-", "./both"]).unwrap(),
            Inputs::Files(files)
        );
        // The device may appear later, and the error of opening it names those that exist.
        assert_eq!(classified(&["eth7"]).unwrap(), devices(&["eth7"]));
    }

    #[test]
    fn what_is_ambiguous_or_missing_is_refused() {
        for (names, says) in [
            (&["both"][..], "write ./both"),
            (&["missing.pcap"], "no such file"),
            (&["/tmp/none"], "no such file"),
            (&["eth0", "a.pcap"], "either devices or files"),
            (&["-", "-"], "twice"),
            (&["eth0", " "], "a name is missing"),
        ] {
            let error = classified(names).unwrap_err();
            assert!(error.contains(says), "{names:?}: {error}");
        }
    }
}
