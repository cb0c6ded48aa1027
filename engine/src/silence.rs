//! How silent a target is: what is waited for, what loss explains, and what is to be done about the rest.

use std::collections::VecDeque;
use std::time::Duration;

use crate::key::ReplicaKey;
use crate::replica::rtt::Rtt;
use crate::time::Time;

/// So many packets are waited for at a time in each lane. Where more are sent, these stand for all.
const MOST_ASKED: usize = 256;
/// Silence that lasts longer is forgotten: it was judged long ago.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Fewer unanswered packets are no evidence.
const LEAST_EVIDENCE: usize = 3;
/// So many unanswered packets are sent again ...
const CHALLENGES: usize = 2;
/// ... and so many, twice, where more than [`LOSSY`] of the answers are late.
const CHALLENGES_IN_LOSS: usize = 3;
/// An owner that calls so late has stood still.
const STOOD_STILL: Duration = Duration::from_millis(5);
/// A share of answers.
const LOSSY: f64 = 0.02;
/// More is never explained by loss.
const MOST_LOSS: f64 = 0.5;
/// The share of late answers is that of about so many answers.
const ANSWERS_COUNTED: f64 = 512.0;

/// Which of a replica's packets an answer is due to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The SYN.
    Connecting,
    /// The first of a run of data.
    Established,
}

/// A packet to which an answer is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) key: ReplicaKey,
    pub(crate) at: Time,
    /// Place among all that were sent in this lane.
    number: u64,
    /// Whether it was counted as late.
    counted: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Unanswered,
    /// Answered, or given up.
    Over,
}

/// Packets of one kind, and how soon they are answered.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// The shortest time after which an answer is late.
    least_patience: Duration,
    asked: VecDeque<Asked>,
    sent: u64,
    rtt: Rtt,
    prompt: f64,
    late: f64,
    /// Silence was looked into, and its share is no news: what is never answered counts as late, too.
    tolerant: bool,
}

impl Lane {
    fn new(least_patience: Duration) -> Self {
        Self {
            least_patience,
            asked: VecDeque::new(),
            sent: 0,
            rtt: Rtt::new(),
            prompt: 0.0,
            late: 0.0,
            tolerant: false,
        }
    }

    /// An answer that takes longer is late.
    pub(crate) fn patience(&self) -> Duration {
        let twice = self.rtt.estimate().map(|micros| u64::from(micros) * 2);
        let usual = twice.map_or(5 * self.least_patience, Duration::from_micros);
        usual.clamp(
            self.least_patience,
            5 * self.least_patience.max(Duration::from_millis(200)),
        )
    }

    /// The share of answers that is late.
    fn loss(&self) -> f64 {
        ((self.late + 0.25) / (self.prompt + self.late + 10.0)).min(MOST_LOSS)
    }

    /// An answer has come.
    pub(crate) fn heard(&mut self, took: Duration, was_sent_again: bool) {
        let patience = self.patience();
        let late = took >= patience;
        // An answer to what was sent twice says nothing of the way (Karn's algorithm).
        if !was_sent_again {
            self.rtt
                .sample(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
        match late {
            false => self.prompt += 1.0,
            // In a tolerant lane it was counted when it became late.
            true if self.tolerant => {}
            true => self.late += 1.0,
        }
        if self.late + self.prompt > ANSWERS_COUNTED {
            self.late /= 2.0;
            self.prompt /= 2.0;
        }
        self.tolerant &= self.loss() > LOSSY;
    }

    /// An answer came this late, whatever was known before.
    fn note_round_trip(&mut self, took: Duration) {
        if 2 * took > self.patience() {
            self.rtt = Rtt::new();
            self.rtt
                .sample(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
    }

    fn tolerate(&mut self, share: f64) {
        let share = share.min(MOST_LOSS);
        self.tolerant = true;
        self.late = self.late.max(self.prompt.max(10.0) * share / (1.0 - share));
    }

    /// Counts the unanswered packets whose answers have become late, if these are no news.
    fn count_late(&mut self, now: Time) {
        let patience = self.patience();
        for asked in self.asked.iter_mut().filter(|asked| !asked.counted) {
            if self.tolerant && now.since(asked.at) >= patience {
                asked.counted = true;
                self.late += 1.0;
            }
        }
    }

    /// A packet goes out to which an answer is due, unless it is one too many. Says whether it is waited for.
    pub(crate) fn ask(&mut self, now: Time, key: ReplicaKey) -> bool {
        if !self.make_room(now) {
            return false;
        }
        self.asked.push_back(Asked {
            key,
            at: now,
            number: self.sent,
            counted: false,
        });
        self.sent += 1;
        true
    }

    /// Makes room for one more packet, if it is time to.
    fn make_room(&mut self, now: Time) -> bool {
        let full = self.asked.len() >= MOST_ASKED;
        let oldest = self.asked.front();
        if full && oldest.is_some_and(|asked| now.since(asked.at) >= self.patience()) {
            self.asked.pop_front();
            return true;
        }
        !full
    }

    /// The unanswered packets whose answers are late, oldest first, if they are more than loss explains.
    fn evidence(&self, now: Time) -> Option<Vec<Asked>> {
        let patience = self.patience();
        let late = self
            .asked
            .iter()
            .filter(|asked| now.since(asked.at) >= patience);
        let late: Vec<Asked> = late.copied().collect();
        let first = late.first()?;
        let of = (self.sent - first.number) as f64;
        let loss = self.loss();
        // Three standard deviations and a little above the mean of a binomial distribution.
        let explained = of * loss + 3.0 * (of * loss * (1.0 - loss)).sqrt() + 2.0;
        (late.len() >= LEAST_EVIDENCE && late.len() as f64 > explained).then_some(late)
    }

    /// How many packets' answers are late, and of how many since the first of these that might be.
    fn unanswered(&self, now: Time) -> (usize, u64) {
        let patience = self.patience();
        let is_late = |asked: &&Asked| now.since(asked.at) >= patience;
        let late = self.asked.iter().filter(is_late).count();
        let young = (self.asked.len() - late) as u64;
        let first = self.asked.front().map_or(self.sent, |asked| asked.number);
        (late, (self.sent - first).saturating_sub(young).max(1))
    }

    /// When an answer that is not late yet will be.
    fn due(&self, now: Time) -> Time {
        let patience = self.patience();
        let due = self.asked.iter().map(|asked| asked.at + patience);
        due.into_iter().find(|at| *at > now).unwrap_or(Time::NEVER)
    }
}

#[derive(Clone, Debug)]
enum State {
    /// Answers come as they should.
    Listening,
    /// No connection begins until it is known whether the challenged packets are answered.
    Holding {
        kind: Kind,
        challenged: Vec<Asked>,
        round: u32,
        until: Time,
    },
    /// Nothing is sent, since this share of the packets of a kind was unanswered.
    Stopped { kind: Kind, share: f64 },
}

/// What is to be done about a target.
#[derive(Debug)]
pub(crate) enum Ruling {
    Nothing,
    /// Send these again.
    Challenge(Vec<Asked>),
    /// Connections may begin again.
    Resume,
    /// Send nothing any more: so many packets of so many are unanswered.
    Stop(usize, u64),
}

/// How silent one target is.
#[derive(Clone, Debug)]
pub(crate) struct Silence {
    connecting: Lane,
    established: Lane,
    state: State,
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            connecting: Lane::new(Duration::from_millis(20)),
            // Linux delays acknowledgements by up to 200 ms.
            established: Lane::new(Duration::from_millis(300)),
            state: State::Listening,
        }
    }
}

impl Silence {
    /// Whether connections wait for a moment.
    pub(crate) const fn is_holding(&self) -> bool {
        matches!(self.state, State::Holding { .. })
    }

    /// Whether nothing may be sent.
    pub(crate) const fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped { .. })
    }

    pub(crate) const fn lane(&mut self, kind: Kind) -> &mut Lane {
        match kind {
            Kind::Connecting => &mut self.connecting,
            Kind::Established => &mut self.established,
        }
    }

    /// As much silence as there was when the target was stopped is none from now on.
    pub(crate) fn tolerate(&mut self) {
        if let State::Stopped { kind, share } = self.state {
            self.lane(kind).tolerate(share);
        }
    }

    /// An answer of a probe took so long.
    pub(crate) fn note_round_trip(&mut self, took: Duration) {
        self.connecting.note_round_trip(took);
        self.established.note_round_trip(took);
    }

    /// As if the target had fallen silent.
    pub(crate) fn stop(&mut self) {
        self.state = State::Stopped {
            kind: Kind::Connecting,
            share: 0.0,
        };
    }

    /// Answers are expected anew: those that are due are forgotten and given.
    pub(crate) fn start(&mut self) -> impl Iterator<Item = Asked> {
        self.state = State::Listening;
        let asked = std::mem::take(&mut self.connecting.asked);
        asked
            .into_iter()
            .chain(std::mem::take(&mut self.established.asked))
    }

    /// Nobody listened for so long.
    pub(crate) fn excuse(&mut self, late: Duration) {
        if let State::Holding { until, .. } = &mut self.state
            && late > STOOD_STILL
        {
            *until = *until + late;
        }
    }

    /// What is to be done, given what became of the packets that are waited for.
    pub(crate) fn judge(&mut self, now: Time, fate: impl Fn(&Asked) -> Fate) -> Ruling {
        for lane in [&mut self.connecting, &mut self.established] {
            lane.asked.retain(|asked| {
                fate(asked) == Fate::Unanswered && now.since(asked.at) < REMEMBERED
            });
        }
        match &mut self.state {
            State::Stopped { .. } => Ruling::Nothing,
            State::Listening => {
                let evidence = [Kind::Connecting, Kind::Established]
                    .into_iter()
                    .find_map(|kind| Some((kind, self.lane(kind).evidence(now)?)));
                match evidence {
                    Some((kind, late)) => self.challenge(now, kind, late, 1),
                    None => {
                        self.connecting.count_late(now);
                        self.established.count_late(now);
                        Ruling::Nothing
                    }
                }
            }
            State::Holding {
                kind,
                challenged,
                round,
                until,
            } => {
                let (kind, round, of) = (*kind, *round, challenged.len());
                let mut silent = challenged.clone();
                silent.retain(|asked| fate(asked) == Fate::Unanswered);
                let most_are = 3 * silent.len() >= 2 * of;
                if most_are && now < *until {
                    return Ruling::Nothing;
                }
                if !most_are {
                    self.state = State::Listening;
                    return Ruling::Resume;
                }
                if round == 1 && self.lane(kind).loss() > LOSSY {
                    return self.challenge(now, kind, silent, 2);
                }
                let (unanswered, of) = self.lane(kind).unanswered(now);
                let share = unanswered as f64 / of as f64;
                self.state = State::Stopped { kind, share };
                Ruling::Stop(unanswered, of)
            }
        }
    }

    fn challenge(&mut self, now: Time, kind: Kind, mut late: Vec<Asked>, round: u32) -> Ruling {
        // The youngest: the others may have been sent again before.
        let lane = self.lane(kind);
        let most = match lane.loss() > LOSSY {
            true => CHALLENGES_IN_LOSS,
            false => CHALLENGES,
        };
        late.drain(..late.len().saturating_sub(most));
        let until = now + lane.patience() + lane.least_patience;
        self.state = State::Holding {
            kind,
            challenged: late.clone(),
            round,
            until,
        };
        Ruling::Challenge(late)
    }

    /// When it is to be judged next.
    pub(crate) fn due(&self, now: Time) -> Time {
        match &self.state {
            State::Holding { until, .. } => *until,
            State::Listening => self.connecting.due(now).min(self.established.due(now)),
            State::Stopped { .. } => Time::NEVER,
        }
    }
}
