//! Options of a replay.

use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use millrace_daemon::exit::ExitError;
use millrace_notation::address::ClientPool;

/// Open sessions with `--asap`, unless said otherwise: fewer than a short accept queue holds, since
/// all of them may begin at once.
pub const DEFAULT_MAX_OPEN: u32 = 100;

/// How a recording is replayed.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Replaying files (-i FILE)")]
pub struct OfflineOptions {
    /// Replay N times as fast as it was recorded; 0.5 is half as fast.
    #[arg(short = 'a', long, value_name = "N", value_parser = speed)]
    pub speed: Option<f64>,

    /// Shorten pauses longer than this: those of the whole recording, and those of each client.
    #[arg(short = 'I', long, value_name = "MS",
          value_parser = RangedU64ValueParser::<u64>::new().range(0..=86_400_000))]
    pub longest_pause: Option<u64>,

    /// Replay as fast as the target answers: no pauses, and at most --max-open sessions that wait for
    /// it at once (100 by default).
    #[arg(long, conflicts_with_all = ["speed", "longest_pause"])]
    pub asap: bool,

    /// Replay the files N times, one after the other, each time from other ports.
    #[arg(short = 'T', long, value_name = "N",
          value_parser = RangedU64ValueParser::<u32>::new().range(1..=1_000_000))]
    pub repeat: Option<u32>,

    /// Replay without an interceptor elsewhere: this host catches the target's answers itself.
    #[arg(long, conflicts_with_all = ["interceptors", "nat", "port", "connections", "id",
          "router_agents", "no_probe", "loopback_clients", "ca", "cert", "key"])]
    pub local: bool,

    /// With --local and a target on this host: the networks that copied connections come from. They
    /// must not be in use; by default 198.19.240.0/20 and 2001:db8:6d72::/112.
    #[arg(
        long,
        value_name = "LIST",
        requires = "local",
        conflicts_with = "client_pool"
    )]
    pub local_net: Option<ClientPool>,

    /// Succeed (exit code 0) when at least this share of the recorded bytes was delivered; less is
    /// exit code 2. By default all must be, and every connection must end as it was recorded.
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub min_fidelity: Option<f64>,
}

impl OfflineOptions {
    /// None of these options means anything without a file.
    ///
    /// # Errors
    /// The first of them that was given.
    pub fn refuse(&self) -> Result<(), ExitError> {
        let given = [
            (self.speed.is_some(), "-a"),
            (self.longest_pause.is_some(), "-I"),
            (self.asap, "--asap"),
            (self.repeat.is_some(), "-T"),
            (self.min_fidelity.is_some(), "--min-fidelity"),
            (self.local, "--local"),
        ];
        match given.into_iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(ExitError::usage(format!(
                "{option} is for replaying recordings: name one with -i FILE, or leave {option} out"
            ))),
            None => Ok(()),
        }
    }

    /// How much faster than recorded; infinite with `--asap`.
    pub fn factor(&self) -> f64 {
        match self.asap {
            true => f64::INFINITY,
            false => self.speed.unwrap_or(1.0),
        }
    }

    /// The longest pause that is kept.
    pub fn pause(&self) -> Option<Duration> {
        self.longest_pause.map(Duration::from_millis)
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if (0.001..=1_000_000.0).contains(&speed) => Ok(speed),
        Ok(_) | Err(_) => Err("a number from 0.001 to 1000000 is wanted, such as 10 or 0.5".into()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err("a number from 0 to 1 is wanted, such as 0.999".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for text in ["0", "-1", "nan", "inf", "x", ""] {
            assert!(speed(text).is_err(), "{text}");
        }
        assert_eq!(speed("0.5"), Ok(0.5));
        for text in ["1.1", "-0.1", "nan", "all"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn without_a_file_the_option_is_named() {
        let options = OfflineOptions {
            repeat: Some(3),
            ..OfflineOptions::default()
        };
        assert!(options.refuse().unwrap_err().to_string().starts_with("-T "));
        assert!(OfflineOptions::default().refuse().is_ok());
    }
}
