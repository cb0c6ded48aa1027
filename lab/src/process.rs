//! A program that runs on a host, ended at the latest when its handle is dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Doing, Error, Result};
use crate::wait::wait_some;

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuTime {
    /// In the program itself.
    pub user: Duration,
    /// In the kernel, for it.
    pub system: Duration,
}

impl CpuTime {
    /// Both.
    pub fn total(self) -> Duration {
        self.user + self.system
    }

    /// What was used since an earlier reading.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

/// A started program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    label: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` with all of its output in the file `log`, made anew.
    pub(crate) fn start(mut command: Command, label: String, log: &Path) -> Result<Self> {
        let naming = || format!("opening the log {}", log.display());
        let output = File::create(log).doing(naming)?;
        let errors = output.try_clone().doing(naming)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .doing(|| format!("starting {label}"))?;
        Ok(Self {
            child,
            label,
            log: log.to_owned(),
            ended: None,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Program and host, for messages.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// All that it has written so far, to standard output and standard error.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.poll(), Ok(None))
    }

    /// Sends a signal; none is sent to a process that has already been waited for.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.poll()?.is_some() {
            return Ok(());
        }
        match i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            Some(pid) => kill_process(pid, signal).doing(|| format!("signalling {}", self.label)),
            None => Ok(()),
        }
    }

    /// Ends it at once (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses the signal.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(10))
    }

    /// Asks it to end (SIGTERM) and waits for that as long as `limit`.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when it is still there afterwards.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when it is still there after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.label);
        wait_some(&what, limit, || self.poll().transpose())?
    }

    /// Its exit status, once it has ended.
    fn poll(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .doing(|| format!("waiting for {}", self.label))?;
        }
        Ok(self.ended)
    }

    /// Processor time used so far, user and system, of this process alone (not of its children).
    ///
    /// # Errors
    /// When it has ended.
    pub fn cpu_time(&self) -> Result<CpuTime> {
        self.ticks("stat")
    }

    /// Processor time used so far, user and system, of its threads with this name.
    ///
    /// # Errors
    /// When it has ended.
    pub fn thread_cpu_time(&self, name: &str) -> Result<Duration> {
        let tasks = format!("/proc/{}/task", self.pid());
        let reading = || format!("reading {tasks} of {}", self.label);
        let mut total = Duration::ZERO;
        for task in std::fs::read_dir(&tasks).doing(reading)? {
            let task = task.doing(reading)?.file_name();
            let task = format!("task/{}", task.to_string_lossy());
            if self.proc_file(&format!("{task}/comm"))?.trim_end() == name {
                total += self.ticks(&format!("{task}/stat"))?.total();
            }
        }
        Ok(total)
    }

    fn ticks(&self, file: &str) -> Result<CpuTime> {
        let stat = self.proc_file(file)?;
        // proc_pid_stat(5): the name, in parentheses, may hold anything; fields 14 and 15 are utime and stime.
        let ticks = stat.rsplit_once(')').and_then(|(_, rest)| {
            let mut fields = rest
                .split_whitespace()
                .skip(11)
                .map(|field| field.parse::<u64>().ok());
            Some((fields.next()??, fields.next()??))
        });
        let (user, system) = ticks.ok_or_else(|| self.malformed(file))?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        let time = |ticks: u64| Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second);
        Ok(CpuTime {
            user: time(user),
            system: time(system),
        })
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = self.proc_file("status")?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|value| value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .map(|kilobytes| kilobytes * 1024)
            .ok_or_else(|| self.malformed("status"))
    }

    fn proc_file(&self, name: &str) -> Result<String> {
        let file = format!("/proc/{}/{name}", self.pid());
        std::fs::read_to_string(&file).doing(|| format!("reading {file} of {}", self.label))
    }

    fn malformed(&self, file: &str) -> Error {
        Error::Malformed {
            what: format!("/proc/{}/{file}", self.pid()),
            detail: format!("the fields of {} are not there; has it ended?", self.label),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing can be done about a process that cannot be ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let log = std::env::temp_dir().join(format!(
            "millrace-process-{}-{}",
            std::process::id(),
            script.len()
        ));
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let process = Process::start(command, "sh".to_owned(), &log).unwrap();
        let _ = log;
        process
    }

    #[test]
    fn a_busy_process_uses_time_and_memory_until_it_is_killed() {
        let mut process = shell("while :; do :; done");
        let busy = || {
            process
                .cpu_time()
                .is_ok_and(|time| time.total() > Duration::from_millis(30))
        };
        crate::wait::wait_for("processor time", Duration::from_secs(10), busy).unwrap();
        assert!(process.thread_cpu_time("sh").unwrap() > Duration::from_millis(30));
        assert!(process.thread_cpu_time("other").unwrap().is_zero());
        assert!(process.resident_bytes().unwrap() > 100_000);
        assert!(process.is_running());
        assert!(!process.kill().unwrap().success());
        assert!(!process.is_running());
        let _ = std::fs::remove_file(&process.log);
    }

    #[test]
    fn output_and_exit_status_are_kept() {
        let mut process = shell("echo out; echo err >&2; exit 3");
        assert_eq!(
            process.wait(Duration::from_secs(10)).unwrap().code(),
            Some(3)
        );
        assert_eq!(process.log(), "out\nerr\n");
        process.signal(Signal::TERM).unwrap();
        let _ = std::fs::remove_file(&process.log);
    }

    #[test]
    fn waiting_for_a_process_that_stays_times_out() {
        let mut process = shell("sleep 30; true");
        let waited = process.wait(Duration::from_millis(50));
        assert!(matches!(waited, Err(Error::TimedOut { .. })));
        let _ = std::fs::remove_file(&process.log);
    }
}
