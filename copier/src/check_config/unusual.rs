//! What deserves a second look before a copier is started.

use millrace_engine::{Intensity, SourcePool};

use crate::options::{Options, ShareOption};
use crate::otlp::{Clients, TracePlan};
use crate::plan::Plan;
use millrace_pilot::guard::Action;

/// More copies of everything than this are more than most targets take.
const MANY: f64 = 10.0;
/// A share with less room for each client address than this.
const LITTLE_ROOM: u32 = 1000;

/// What is unusual, and why it matters.
pub(super) fn lines(options: &Options, plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    let mut note = |unusual: bool, line: &str| {
        if unusual {
            lines.push(line.to_owned());
        }
    };
    let ramp = plan.pilot.ramp.as_ref();
    let most = ramp.map_or(plan.pilot.intensity, |ramp| {
        let levels = ramp
            .stages()
            .iter()
            .flat_map(|stage| [stage.from, stage.to]);
        levels.max().unwrap_or(Intensity::ONE)
    });
    let several = most > Intensity::ONE || plan.pilot.factor > 1;
    let keeps_clients = matches!(plan.engine.sources, SourcePool::Clients);
    let block = plan.engine.space(true).capacity().per_address;
    let live = plan.ring().is_some();
    note(
        options.common.insecure && plan.local.is_some(),
        "--insecure is not needed with --local: there is no other Millrace daemon to talk to",
    );
    note(
        options.common.insecure && plan.local.is_none(),
        "--insecure: whoever reaches the interceptors' port can ask for answers; use certificates \
         (--ca, --cert, --key) outside of a test",
    );
    note(
        !plan.engine.gate,
        "-W: requests do not wait for answers, so that a target which is slower than live gets them \
         in another order than clients would send them",
    );
    note(
        !plan.probe && plan.local.is_none(),
        "--no-probe: if the target's answers are not diverted, real clients get them; with the probe \
         that is found before anything is copied",
    );
    note(
        plan.router_agents.is_empty() && plan.probe && live,
        "no --router-agent: make sure that the target's routes divert its answers",
    );
    note(
        most == Intensity::ZERO,
        "nothing is copied until `ctl intensity` says how much",
    );
    note(
        most.as_ratio() >= MANY,
        "ten copies of each session or more: begin with a ramp and a guard",
    );
    note(
        most > Intensity::ONE && plan.pilot.guards.is_empty(),
        "more than the live traffic without a guard: --guard can hold, step back or stop when the \
         target suffers",
    );
    let holds = |guard: &millrace_pilot::guard::Guard| guard.action == Action::Hold;
    note(
        ramp.is_none() && plan.pilot.guards.iter().any(holds),
        "a guard that holds has nothing to hold without a ramp: use step-back or stop",
    );
    note(
        plan.engine.spread.is_zero() && several,
        "--spread 0: the copies of one session arrive as a burst",
    );
    note(
        keeps_clients && several && live,
        "several copies bear one client's address: behind few addresses (a proxy, NAT) ports may run \
         out; a client pool (-c) has more",
    );
    note(
        keeps_clients && block < LITTLE_ROOM,
        "a small share of ports for each client address (-f): write K/N with as many shares as there \
         are copiers",
    );
    note(
        options
            .intensity
            .share
            .and_then(ShareOption::share)
            .is_some_and(|share| share.of() > 1),
        "every other copier of these targets but one needs a share of its own (-f)",
    );
    note(
        plan.engine.port_rest.is_zero(),
        "--port-rest 0: a target, balancer or firewall may take a new connection for an old one",
    );
    note(
        options
            .common
            .admin
            .is_some_and(|admin| !admin.ip().is_loopback()),
        "the admin port is open to the network: whoever reaches it sees figures, addresses and options",
    );
    let shows_clients =
        |traces: &TracePlan| traces.clients == Clients::Plain && traces.collector.is_in_the_clear();
    note(
        plan.traces.as_ref().is_some_and(shows_clients),
        "--otlp-clients plain: client addresses go through the network unencrypted; use https, or hashed",
    );
    lines.extend(options.tcpcopy.needless().into_iter().map(str::to_owned));
    lines
}
