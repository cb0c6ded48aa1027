//! What the service manager is told (sd_notify(3)): that the daemon is up, how it stands, that it lives, that it reads its
//! options again, and that it ends. A daemon that none has started, without NOTIFY_SOCKET, says nothing.
//!
//! The socket is opened before the daemon gives up its privileges and confines itself. Once the daemon is up nothing
//! waits for the manager: what its queue does not take is said anew later.

use std::ffi::{OsStr, OsString};
use std::io::{Error, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};

use crate::drain::{DrainWatch, Stage};

/// How often the manager is told that the daemon lives, if it does not say itself how often it wants that.
const PULSE: Duration = Duration::from_secs(5);
/// How often things are looked at, at most: a sentence that changes all the time is told so often.
const LOOK: Duration = Duration::from_secs(1);

/// The service manager that has started this process, if one has. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct ServiceManager {
    socket: Option<Arc<UnixDatagram>>,
    /// Why there is no socket, though one was named.
    trouble: Option<String>,
    /// It ends a daemon of which it hears nothing for so long.
    watchdog: Option<Duration>,
    hearts: Arc<Mutex<Vec<Watched>>>,
}

/// A thread shows that it lives.
#[derive(Debug, Clone, Default)]
pub struct Heart(Arc<AtomicU64>);

impl Heart {
    /// To be called in each round of the thread's work, or now and then.
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A heart, and how often it had beaten when it was looked at last.
#[derive(Debug)]
struct Watched {
    thread: &'static str,
    heart: Heart,
    seen: u64,
}

impl ServiceManager {
    /// The one that the environment names.
    pub fn find() -> Self {
        Self::of(|name| std::env::var_os(name))
    }

    fn of(environment: impl Fn(&str) -> Option<OsString>) -> Self {
        let Some(name) = environment("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Self::default();
        };
        let (socket, trouble) = match connect(&name) {
            Ok(socket) => (Some(Arc::new(socket)), None),
            Err(error) => (None, Some(format!("{}: {error}", name.display()))),
        };
        let number = |name| environment(name)?.to_str()?.parse::<u64>().ok();
        // The environment may be inherited from a service that started this one.
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| ours && *micros > 0);
        Self {
            socket,
            trouble,
            watchdog: watchdog.map(Duration::from_micros),
            hearts: Arc::default(),
        }
    }

    /// A heart for a thread without which the daemon does not do its work: from now on the manager is told that the daemon
    /// lives only while all of them beat.
    pub fn heart(&self, thread: &'static str) -> Heart {
        let heart = Heart::default();
        self.hearts.lock().push(Watched {
            thread,
            heart: heart.clone(),
            seen: 0,
        });
        heart
    }

    /// The daemon is up.
    pub(crate) fn ready(&self) {
        if let Some(trouble) = &self.trouble {
            tracing::warn!("the service manager cannot be told that this daemon is up: {trouble}");
        }
        // Waits for room, this once: it must not get lost.
        self.say("READY=1");
        if let Some(Err(error)) = self.socket.as_ref().map(|it| it.set_nonblocking(true)) {
            tracing::warn!("what the service manager is told may hold up this daemon: {error}");
        }
    }

    /// The daemon begins to read again what may have changed.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// It has read all of it.
    pub(crate) fn reloaded(&self) {
        self.say("READY=1");
    }

    /// From now on tells how the daemon stands, in the words of `sentence`, that it lives, and that it ends.
    pub fn follow(
        &self,
        runtime: &Handle,
        drain: DrainWatch,
        sentence: impl Fn() -> String + Send + Sync + 'static,
    ) {
        if self.socket.is_some() {
            let manager = self.clone();
            runtime.spawn(async move { manager.tell(drain, sentence).await });
        }
    }

    async fn tell(self, drain: DrainWatch, sentence: impl Fn() -> String) {
        let pulse = self.watchdog.map_or(PULSE, |watchdog| watchdog / 2);
        let mut looks = interval(LOOK.min(pulse / 2));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut said = Said::default();
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                () = drain.draining(), if !said.stopping => {}
            }
            let lines = said.lines(
                Instant::now(),
                pulse,
                drain.stage() > Stage::Running,
                sentence(),
                || self.lives(),
            );
            if !lines.is_empty() {
                self.say(&lines.join("\n"));
            }
        }
    }

    /// Whether each heart has beaten since the manager was told last; those that have not are named in the log.
    fn lives(&self) -> Result<(), Vec<&'static str>> {
        let mut hearts = self.hearts.lock();
        let still = |it: &&Watched| it.heart.0.load(Ordering::Relaxed) == it.seen;
        let silent: Vec<&'static str> = hearts.iter().filter(still).map(|it| it.thread).collect();
        if !silent.is_empty() {
            return Err(silent);
        }
        for watched in hearts.iter_mut() {
            watched.seen = watched.heart.0.load(Ordering::Relaxed);
        }
        Ok(())
    }

    fn say(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(text.as_bytes()) {
            tracing::debug!("the service manager does not listen: {error}");
        }
    }
}

/// unix(7): a path, or an abstract name behind `@`.
fn connect(name: &OsStr) -> std::io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "NOTIFY_SOCKET is neither a path nor an abstract name",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// What the manager was told.
#[derive(Debug, Default)]
struct Said {
    sentence: String,
    sentence_at: Option<Instant>,
    stopping: bool,
    pulse_at: Option<Instant>,
    /// When a thread was found silent first, and whether that was logged.
    silent: Option<(Instant, bool)>,
}

impl Said {
    /// What it is told now. `lives` is asked when it is to be told so.
    fn lines(
        &mut self,
        now: Instant,
        pulse: Duration,
        draining: bool,
        sentence: String,
        lives: impl FnOnce() -> Result<(), Vec<&'static str>>,
    ) -> Vec<String> {
        let mut lines = Vec::new();
        let due = |at: Option<Instant>, every| at.is_none_or(|at| now >= at + every);
        if draining && !self.stopping {
            self.stopping = true;
            // At once more time: --grace may be longer than what the unit says.
            self.pulse_at = None;
            lines.push("STOPPING=1".to_owned());
        }
        if sentence != self.sentence && due(self.sentence_at, LOOK) {
            lines.push(format!("STATUS={}", sentence.replace('\n', " ")));
            self.sentence = sentence;
            self.sentence_at = Some(now);
        }
        if due(self.pulse_at, pulse) {
            match lives() {
                Ok(()) => {
                    self.pulse_at = Some(now);
                    self.silent = None;
                    lines.push("WATCHDOG=1".to_owned());
                    if draining {
                        let micros = (2 * pulse).as_micros();
                        lines.push(format!("EXTEND_TIMEOUT_USEC={micros}"));
                    }
                }
                Err(threads) => self.note_silence(now, pulse, &threads),
            }
        }
        lines
    }

    /// A thread that stays silent is named in the log before the manager ends the daemon.
    fn note_silence(&mut self, now: Instant, pulse: Duration, threads: &[&str]) {
        let (since, logged) = self.silent.get_or_insert((now, false));
        if !*logged && now >= *since + pulse / 2 {
            *logged = true;
            tracing::error!(
                "the {} thread hangs: the service manager is not told any more that this daemon lives, and may end it",
                threads.join(" and the ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::drain;

    /// A manager's end of a socket, and the manager as the daemon has it.
    struct Scene {
        socket: UnixDatagram,
        path: PathBuf,
        manager: ServiceManager,
    }

    impl Scene {
        fn new(name: &str, watchdog: Option<Duration>) -> Self {
            let file = format!("millrace-notify-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(file);
            let _ = std::fs::remove_file(&path);
            let socket = UnixDatagram::bind(&path).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            let manager = ServiceManager::of(|variable| match variable {
                "NOTIFY_SOCKET" => Some(path.clone().into()),
                "WATCHDOG_USEC" => watchdog.map(|it| it.as_micros().to_string().into()),
                "WATCHDOG_PID" => Some(std::process::id().to_string().into()),
                _ => None,
            });
            Self {
                socket,
                path,
                manager,
            }
        }

        fn heard(&self) -> String {
            let mut buffer = [0; 1000];
            let length = self.socket.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        }

        /// All that comes within so long.
        fn heard_for(&self, time: Duration) -> Vec<String> {
            let end = Instant::now() + time;
            let mut all = Vec::new();
            while let Some(left) = end
                .checked_duration_since(Instant::now())
                .filter(|it| !it.is_zero())
            {
                self.socket.set_read_timeout(Some(left)).unwrap();
                let mut buffer = [0; 1000];
                let Ok(length) = self.socket.recv(&mut buffer) else {
                    break;
                };
                all.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
            }
            self.socket
                .set_read_timeout(Some(Duration::from_secs(20)))
                .unwrap();
            all
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.path);
        }
    }

    #[test]
    fn without_a_manager_nothing_is_said_and_nothing_fails() {
        let manager = ServiceManager::of(|_| None);
        assert!(manager.socket.is_none() && manager.watchdog.is_none());
        manager.ready();
        manager.reloading();
        manager.reloaded();
        for (name, word) in [
            ("/nonexistent/notify", "No such file"),
            ("vsock:2:1", "neither"),
        ] {
            let lost = ServiceManager::of(|it| (it == "NOTIFY_SOCKET").then(|| name.into()));
            assert!(
                lost.trouble.as_ref().is_some_and(|it| it.contains(word)),
                "{lost:?}"
            );
            lost.ready();
        }
    }

    #[test]
    fn it_is_told_of_the_start_and_of_each_reload() {
        let scene = Scene::new("start", None);
        scene.manager.ready();
        assert_eq!(scene.heard(), "READY=1");
        scene.manager.reloading();
        let reloading = scene.heard();
        let micros = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        scene.manager.reloaded();
        assert_eq!(scene.heard(), "READY=1");
    }

    #[test]
    fn an_abstract_name_is_one_too_and_a_watchdog_of_another_process_is_none() {
        let name = format!("millrace-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let manager = ServiceManager::of(|variable| match variable {
            "NOTIFY_SOCKET" => Some(format!("@{name}").into()),
            "WATCHDOG_USEC" => Some("1000000".into()),
            "WATCHDOG_PID" => Some("1".into()),
            _ => None,
        });
        assert_eq!(manager.watchdog, None);
        manager.ready();
        let mut buffer = [0; 100];
        assert_eq!(socket.recv(&mut buffer).unwrap(), "READY=1".len());
    }

    #[tokio::test]
    async fn a_manager_that_does_not_read_holds_up_nothing_once_the_daemon_is_up() {
        let scene = Scene::new("full", None);
        scene.manager.ready();
        for _ in 0..5000 {
            scene.manager.reloaded();
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_hears_how_the_daemon_stands_that_it_lives_and_that_it_ends() {
        let watchdog = Duration::from_millis(400);
        let scene = Scene::new("life", Some(watchdog));
        let (trigger, watch) = drain::channel();
        let (first, second) = (scene.manager.heart("first"), scene.manager.heart("second"));
        let sentence = Arc::new(Mutex::new("copying\nwell".to_owned()));
        let said = sentence.clone();
        first.beat();
        second.beat();
        let handle = Handle::current();
        scene
            .manager
            .follow(&handle, watch, move || said.lock().clone());
        assert_eq!(scene.heard(), "STATUS=copying well\nWATCHDOG=1");

        // Both beat: it is told about every 200 ms, and of nothing that has not changed.
        let beating = tokio::spawn({
            let first = first.clone();
            async move {
                loop {
                    first.beat();
                    second.beat();
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        });
        for _ in 0..3 {
            assert_eq!(scene.heard(), "WATCHDOG=1");
        }
        // One of them alone is not enough.
        beating.abort();
        let _ = beating.await;
        scene.heard_for(watchdog);
        first.beat();
        assert_eq!(scene.heard_for(2 * watchdog), [] as [&str; 0]);

        *sentence.lock() = "draining".to_owned();
        trigger.advance();
        let last = scene.heard_for(3 * LOOK).join("\n");
        assert!(last.starts_with("STOPPING=1"), "{last}");
        assert!(last.contains("STATUS=draining"), "{last}");
        assert!(!last.contains("WATCHDOG"), "{last}");
    }

    #[test]
    fn while_it_drains_it_asks_for_time_as_long_as_it_lives() {
        let (pulse, begin) = (Duration::from_secs(15), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut said = Said::default();
        let copying = || "copying".to_owned();
        assert_eq!(
            said.lines(at(0), pulse, false, copying(), || Ok(())),
            ["STATUS=copying", "WATCHDOG=1"]
        );
        let more = "EXTEND_TIMEOUT_USEC=30000000";
        assert_eq!(
            said.lines(at(1), pulse, true, copying(), || Ok(())),
            ["STOPPING=1", "WATCHDOG=1", more]
        );
        assert_eq!(
            said.lines(at(2), pulse, true, copying(), || Ok(())),
            [] as [&str; 0]
        );
        assert_eq!(
            said.lines(at(16), pulse, true, copying(), || Ok(())),
            ["WATCHDOG=1", more]
        );
        let hangs = || Err(vec!["shard"]);
        for second in 31..60 {
            let lines = said.lines(at(second), pulse, true, copying(), hangs);
            assert_eq!(lines, [] as [&str; 0]);
        }
        assert!(
            said.silent
                .is_some_and(|(since, logged)| since == at(31) && logged)
        );
        assert_eq!(
            said.lines(at(60), pulse, true, copying(), || Ok(())),
            ["WATCHDOG=1", more]
        );
    }

    #[test]
    fn a_sentence_that_changes_all_the_time_is_told_once_a_second() {
        let begin = Instant::now();
        let mut said = Said::default();
        let mut count = 0;
        for tenth in 0..100 {
            let now = begin + Duration::from_millis(100 * tenth);
            let sentence = format!("{tenth} headers");
            let lines = said.lines(now, Duration::from_secs(1000), false, sentence, || Ok(()));
            count += lines.iter().filter(|it| it.starts_with("STATUS=")).count();
        }
        assert_eq!(count, 10);
    }
}
