//! Recordings on their way to the engine, in simulated time: what holds them back, and what does not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    unused_crate_dependencies
)]

#[path = "../../engine/tests/sim/mod.rs"]
mod sim;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millrace_capture::{PacketWriter, Source, Waker};
use millrace_engine::{Config, RefusalReason, Time};
use millrace_pilot::Mode;
use millrace_recordings::feed::{Feed, FeedConfig, Step};
use millrace_wire::{LinkType, PacketBuilder, Tunnels};

use Action::{Client, ClientFin, Pause, Server, ServerFin};
use sim::{Action, Behaviour, Live, Packet, World, at, config, ms, secs};

/// The clients' ports begin here.
const PORT: u16 = 10_000;

/// A recording in a file that goes with it.
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

impl File {
    fn of(mut packets: Vec<(Time, Packet)>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        packets.sort_by_key(|(time, _)| *time);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millrace-feed-{}-{number}.pcapng", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = std::fs::File::create(&path).unwrap();
        let interfaces = [("sim", LinkType::RawIp, 65_535)];
        let mut writer = PacketWriter::new(std::io::BufWriter::new(file), interfaces).unwrap();
        let mut builder = PacketBuilder::new();
        for (time, packet) in packets {
            let mut room = vec![0; 65_535];
            // Of live servers only headers are there.
            let mut payload = packet.payload.clone();
            payload.resize(packet.payload_len, 0);
            let payload = [&payload[..], &[]];
            let built = builder.build(&packet.tuple, &packet.header, payload, &mut room);
            let len = built.unwrap();
            let kept = len - packet.payload_len + packet.payload.len();
            let nanos = time.as_micros() * 1000;
            writer.packet(0, nanos, len as u32, &room[..kept]).unwrap();
        }
        writer.flush().unwrap();
        Self(path)
    }
}

/// A replay in a simulated world.
struct Replay {
    world: World,
    feed: Feed,
    mode: Mode,
    /// The most sessions that were busy at the same time, and the most connections.
    most: (usize, usize),
    _file: File,
}

impl Replay {
    fn of(
        packets: Vec<(Time, Packet)>,
        engine: impl FnOnce(&mut Config),
        feed: impl FnOnce(&mut FeedConfig),
    ) -> Self {
        let file = File::of(packets);
        let mut settings = Config {
            recorded: Some(millrace_engine::Recorded::default()),
            ..config()
        };
        engine(&mut settings);
        let mut how = FeedConfig {
            sources: vec![Source::Path(file.0.clone())],
            rounds: 1,
            speed: 1.0,
            longest_pause: None,
            max_open: None,
            max_new_sessions: None,
            tunnels: Tunnels::none(),
            progress: false,
        };
        feed(&mut how);
        if let Some(recorded) = &mut settings.recorded {
            recorded.speed = how.speed;
        }
        let mut world = World::new(settings, 1);
        world.keep_sent = false;
        Self {
            world,
            feed: Feed::open(how, Waker::new().unwrap()).unwrap(),
            mode: Mode::Running,
            most: (0, 0),
            _file: file,
        }
    }

    /// One step, and a moment; says whether the replay is over.
    fn step(&mut self, moment: Duration) -> bool {
        let Self {
            world, feed, mode, ..
        } = self;
        while feed.step(world.now, &mut world.engine, *mode) == Step::More {}
        world.run(moment);
        let gauges = world.engine.gauges();
        let open = gauges.replicas - gauges.replicas_lingering;
        self.most = (self.most.0.max(gauges.sessions_busy), self.most.1.max(open));
        feed.is_finished(world.now, &world.engine)
    }

    /// Until it is finished; gives the seconds of simulated time that it took.
    fn run(&mut self, moment: Duration) -> f64 {
        self.begin();
        let begin = self.world.now;
        let limit = begin + secs(7200);
        let mut packets = 0;
        while !self.step(moment) {
            assert!(self.world.now < limit, "{:?}", self.world.engine.gauges());
            // The file is read on a thread, in real time.
            let before = std::mem::replace(&mut packets, self.feed.recording().packets);
            if before == packets {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        self.world.now.since(begin).as_secs_f64()
    }

    /// Until the file's first packets are there; of a small file that is all.
    fn begin(&mut self) {
        while self.feed.recording().packets == 0 {
            self.step(Duration::ZERO);
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

/// One session for each of these milliseconds: a request, an answer, and the end.
fn sessions(starts: impl IntoIterator<Item = u64>) -> Vec<(Time, Packet)> {
    let talk = [Client(vec![7; 300]), Server(100), ClientFin, ServerFin];
    let mut all = Vec::new();
    for (port, start) in (PORT..).zip(starts) {
        all.extend(Live::new(at(ms(start)), port).play(&talk));
    }
    all
}

fn answering(delay: Duration) -> Behaviour {
    Behaviour {
        answers: vec![(300, 100)],
        answer_delay: delay,
        ..Behaviour::default()
    }
}

#[test]
fn a_pause_of_the_operator_stops_the_reading_and_shifts_the_rest() {
    let mut replay = Replay::of(sessions((0..50).map(|i| i * 100)), |_| {}, |_| {});
    replay.world.behaviour = answering(ms(1));
    replay.begin();
    while replay.world.engine.stats().sessions_captured < 10 {
        replay.step(ms(5));
    }
    replay.mode = Mode::Paused;
    for _ in 0..600 {
        replay.step(ms(100));
    }
    assert!(replay.world.engine.stats().sessions_captured <= 11);
    replay.mode = Mode::Running;
    let rest = replay.run(ms(5));
    assert!((3.5..6.0).contains(&rest), "{rest} s after the pause");
    let stats = replay.world.engine.stats();
    assert_eq!(
        (stats.sessions_captured, stats.bytes_delivered),
        (50, 15_000)
    );
    assert!(!replay.feed.recording().interrupted);
}

#[test]
fn a_guards_stop_ends_the_replay() {
    let mut replay = Replay::of(sessions((0..50).map(|i| i * 100)), |_| {}, |_| {});
    replay.world.behaviour = answering(ms(1));
    replay.begin();
    replay.mode = Mode::Stopped;
    replay.run(ms(5));
    assert!(replay.feed.recording().interrupted);
    assert!(replay.world.engine.stats().sessions_captured < 50);
}

#[test]
fn sessions_that_wait_for_an_answer_count_as_open_and_copies_of_one_count_once() {
    for replicas in [1, 3] {
        let mut replay = Replay::of(
            sessions((0..40).map(|i| i * 100)),
            |config| config.intensity = millrace_engine::Intensity::replicas(replicas),
            |feed| {
                feed.speed = f64::INFINITY;
                feed.max_open = Some(5);
            },
        );
        replay.world.behaviour = answering(ms(900));
        let took = replay.run(ms(5));
        assert_eq!(replay.most, (5, 5 * usize::from(replicas)));
        // As fast as the target answers, five at a time.
        assert!((7.0..12.0).contains(&took), "{took} s");
        assert_eq!(replay.world.engine.stats().sessions_captured, 40);
        replay.world.assert_all_delivered();
    }
}

#[test]
fn sessions_that_wait_for_more_of_the_recording_do_not_hold_it_up() {
    // A hundred connections of keepalive, all open until the end.
    let talk = [
        Client(vec![7; 300]),
        Server(100),
        Pause(secs(100)),
        Client(vec![7; 300]),
        Server(100),
        ClientFin,
    ];
    let mut all = Vec::new();
    for port in 0..100 {
        all.extend(Live::new(at(ms(u64::from(port) * 10)), PORT + port).play(&talk));
    }
    let mut replay = Replay::of(
        all,
        |_| {},
        |feed| {
            feed.speed = f64::INFINITY;
            feed.max_open = Some(5);
        },
    );
    replay.world.behaviour = Behaviour {
        answers: vec![(300, 100), (600, 100)],
        ..answering(ms(50))
    };
    let took = replay.run(ms(5));
    assert!(took < 10.0, "{took} s");
    replay.world.assert_all_delivered();
}

#[test]
fn memory_full_of_idle_sessions_is_read_over_and_what_finds_no_room_is_counted() {
    let talk = [Client(vec![7; 10]), Server(10)];
    let mut all = Vec::new();
    for port in 0..4000u16 {
        all.extend(Live::new(at(ms(u64::from(port))), PORT + port).play(&talk));
    }
    let mut replay = Replay::of(
        all,
        |config| config.memory_limit = 1 << 20,
        |feed| feed.speed = f64::INFINITY,
    );
    replay.world.behaviour = Behaviour {
        answers: vec![(10, 10)],
        ..Behaviour::default()
    };
    replay.run(ms(20));
    let stats = replay.world.engine.stats();
    let refused = stats.sessions_refused.of(RefusalReason::Memory);
    assert_eq!(stats.sessions_captured + refused, 4000);
    assert!(stats.sessions_captured > 1000, "{refused} refused");
    assert_eq!(stats.replicas_aborted.total(), 0);
    assert_eq!(replay.feed.recording().rounds_done, 1);
}

#[test]
fn a_file_that_is_gone_when_it_is_to_be_read_again_is_no_round() {
    let mut replay = Replay::of(
        sessions((0..5).map(|i| i * 100)),
        |_| {},
        |feed| feed.rounds = 10_000,
    );
    replay.world.behaviour = answering(ms(1));
    replay.begin();
    // Two rounds, and those that the reader is ahead: on a busy machine hundreds, but bounded.
    while replay.feed.recording().rounds_done < 2 {
        replay.step(ms(1));
    }
    drop(std::fs::remove_file(&replay._file.0));
    replay.run(ms(5));
    let recording = replay.feed.recording();
    assert!(
        (2..10_000).contains(&recording.rounds_done),
        "{recording:?}"
    );
    assert_eq!(recording.problems.len(), 1, "{recording:?}");
    let captured = replay.world.engine.stats().sessions_captured;
    assert_eq!(captured, 5 * u64::from(recording.rounds_done));
}

/// A replay of a pipe that nobody has written to, and the pipe.
fn of_a_pipe(name: &str) -> (Replay, File) {
    let name = format!("millrace-feed-{}-{name}.fifo", std::process::id());
    let path = std::env::temp_dir().join(name);
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    let source = Source::Path(path.clone());
    let replay = Replay::of(Vec::new(), |_| {}, |feed| feed.sources = vec![source]);
    (replay, File(path))
}

#[test]
fn a_pipe_without_data_holds_nobody_up() {
    let (mut replay, _pipe) = of_a_pipe("silent");
    for _ in 0..10 {
        assert!(!replay.step(secs(1)));
    }
    let (now, engine) = (replay.world.now, &mut replay.world.engine);
    replay.feed.interrupt(now, engine);
    assert!(replay.step(secs(1)));
}

#[test]
fn a_pipe_that_holds_no_packets_is_a_problem_of_the_recording() {
    let (mut replay, pipe) = of_a_pipe("wrong");
    std::fs::write(
        &pipe.0,
        b"no packets at all, but more than a header's worth",
    )
    .unwrap();
    while !replay.step(ms(1)) {
        std::thread::sleep(Duration::from_micros(100));
    }
    let recording = replay.feed.recording();
    assert_eq!((recording.rounds_done, recording.problems.len()), (0, 1));
}
