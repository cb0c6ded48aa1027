//! The daemon: opens everything in the right order, and ends it.

mod farewell;
mod traces;

use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use millrace_capture::{Sender, Tap, Waker, check_privilege};
use millrace_daemon::admin::{self, Admin};
use millrace_daemon::daemonize::{self, Launch};
use millrace_daemon::drain::{self, DrainTrigger};
use millrace_daemon::exit::ExitError;
use millrace_daemon::logging::{self, Log};
use millrace_daemon::pidfile::PidFile;
use millrace_daemon::privileges::{self, Capability, Needs, PrivilegeStatus};
use millrace_daemon::readiness::Readiness;
use millrace_daemon::runtime::{Runtime, ThreadRuntime};
use millrace_daemon::service_manager::ServiceManager;
use millrace_daemon::{config, signals};
use millrace_engine::Engine;
use millrace_fleet::consul::Slot;
use millrace_kubernetes::Access;
use millrace_recordings::feed::{Feed, FeedConfig};
use millrace_replay::answers::AnswerSource;
use millrace_replay::commands::Commands;
use millrace_replay::conntrack;
use millrace_replay::inbox::Inbox;
use millrace_replay::input::Input;
use millrace_replay::intake::Intake;
use millrace_replay::local::Local;
use millrace_replay::outlet::Outlet;
use millrace_replay::pressure::Governor;
use millrace_replay::priority;
use millrace_replay::shard::{Parts, Shard, Show};
use serde_json::json;
use tokio::runtime::Handle;

use self::farewell::{check_report_file, finish};
use self::traces::Traces;
use crate::address_watch;
use crate::agents::Agents;
use crate::check;
use crate::cluster::fleet::Fleet;
use crate::cluster::leases::Leases;
use crate::cluster::membership::{Member, Membership};
use crate::cluster::plan::ClusterPlan;
use crate::cluster::share;
use crate::control::{self, CommandSocket};
use crate::headline::{self, Monitor};
use crate::interceptors::Interceptors;
use crate::metrics;
use crate::options::{ADMIN, MORE_ADMIN, Options};
use crate::outcome;
use crate::page::Page;
use crate::plan::{InputPlan, Plan};
use crate::pods::{self, KnownPods};
use crate::reload;
use crate::report::Report;
use crate::report::Shared;

/// Runs the copier.
///
/// # Errors
/// One line that says what is wrong: exit code 64 for the command line, 1 for the rest.
pub fn run() -> Result<(), ExitError> {
    let mut options: Options = config::parse()?;
    let plan = Plan::new(&options)?;
    let startup = match daemonize::launch(options.common.daemon)? {
        Launch::Parent => return Ok(()),
        Launch::Run(startup) => startup,
    };
    check_privilege().map_err(failed)?;
    let log = open_log(&options)?;
    let begun_with = options.clone();
    let (slot, plan) = with_share(&mut options, plan)?;
    let (admin_listener, control) = open_ports(&options)?;
    check_report_file(&plan)?;
    let subject = check::Subject::new(&options, &plan);
    check::SUITE.at_start(&subject, &options.common.skip_checks)?;
    keep_peers(&options, &plan)?;
    let manager = startup.manager();
    let access = pods::access(&plan)?;
    let opened = Opened::open(
        &options,
        (&plan, access.as_ref()),
        control.as_ref(),
        &manager,
    )?;

    let runtime = Runtime::small()?;
    // The links to interceptors are served by the shard's thread.
    let links = ThreadRuntime::new()?;
    let (trigger, watch) = drain::channel();
    let hang_ups = signals::install(&runtime, trigger.clone(), log.clone(), manager.clone())?;

    let waker = Waker::new().map_err(|error| ExitError::caused("cannot make a waker", &error))?;
    plan.security.keep_fresh(&runtime)?;
    let inbox = Arc::new(Inbox::new());
    let readiness = Readiness::new();
    let (on, news) = ((&*runtime, links.handle()), (&inbox, &waker));
    let fleet = find_peers(&plan, on, news, &readiness)?;
    let agents = fleet.agents().clone();
    runtime.spawn(reload::follow(hang_ups, begun_with, fleet.clone()));
    if opened.tracked {
        runtime.spawn(conntrack::watch());
    }
    runtime.spawn(address_watch::follow(plan.clone(), inbox.clone()));
    let known_pods = follow_pods(&plan, access, &inbox, &runtime);
    let keeper = share::Keeper::new(slot, &runtime);
    let leases = Leases {
        share: keeper.claim(),
        plan: follow_plan(&plan, &runtime),
    };
    let shown = Shown::new(
        &plan,
        (&fleet, &known_pods),
        leases.clone(),
        &admin_listener,
        &runtime,
    );
    shown.serve(
        admin_listener,
        &plan,
        &readiness,
        opened.privileges,
        &runtime,
    )?;
    let commands = Commands::new(waker.clone());
    let spare = take_commands(control, &commands, trigger, log, &runtime)?;

    announce(&plan);
    let input = open_input(opened.input, &waker)?;
    let mut engine = Engine::new(plan.engine.clone());
    plan.protocols.install(&mut engine);
    let traces = Traces::start(&plan, &runtime);
    let shard = Shard::new(Parts {
        cluster: Box::new(leases),
        engine,
        input,
        governor: Governor::new(plan.pressure),
        answers: opened.answers,
        sender: opened.sender,
        probe: plan.probe,
        pilot: plan.pilot.clone(),
        commands,
        diverters: Box::new(agents),
        inbox,
        waker,
        drain: watch.clone(),
        grace: plan.grace,
        show: show(&plan, &shown, &traces),
        tell: traces.tell(),
        readiness,
        heart: manager.heart("shard"),
    });
    manager.follow(&runtime, watch, shown.sentence());
    // The end of a look-up of a name, which it may wait for, comes after all else.
    let (_, _links) = links.run_apart("shard", || startup.ready(), || shard.run())?;
    let report = traces.finish(shown.shared.report(), &runtime);
    finish(&plan, &report, spare.as_deref())?;
    opened.local.as_ref().map_or(Ok(()), Local::check)?;
    shown.leave(&runtime);
    keeper.end(&runtime)?;
    outcome::judge(&report, plan.min_fidelity, &plan.engine.services)
}

/// The plan with a share of the sources that is this copier's alone, where `-f auto` asks for one.
fn with_share(options: &mut Options, plan: Plan) -> Result<(Option<Slot>, Arc<Plan>), ExitError> {
    let slot = share::take(options)?;
    let plan = match slot {
        Some(_) => Plan::new(options)?,
        None => plan,
    };
    Ok((slot, Arc::new(plan)))
}

/// The log, with what is to be said of the options.
fn open_log(options: &Options) -> Result<Log, ExitError> {
    let log = logging::init(&options.common.logging())?;
    config::warn_of_misspelt_variables::<Options>();
    for line in options.tcpcopy.needless() {
        tracing::info!("{line}");
    }
    Ok(log)
}

/// The admin port, and the socket for commands.
fn open_ports(options: &Options) -> Result<(TcpListener, Option<CommandSocket>), ExitError> {
    let admin_listener = match options.common.admin {
        Some(named) => admin::bind(named)?,
        None => admin::bind_free(ADMIN, MORE_ADMIN)?,
    };
    let admin = admin_listener.local_addr();
    let admin = admin.map_err(|error| ExitError::caused("cannot use the admin port", &error))?;
    let control = CommandSocket::open(options.control.as_deref(), admin.port())?;
    Ok((admin_listener, control))
}

/// Makes the directory in which the last known peers are kept, for the user that writes there.
fn keep_peers(options: &Options, plan: &Plan) -> Result<(), ExitError> {
    if plan.consul.is_none() {
        return Ok(());
    }
    let directory = &plan.state_dir;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory);
    made.map_err(|error| {
        let what = format!("cannot keep peers in {} (--state-dir)", directory.display());
        ExitError::caused(what, &error)
    })?;
    privileges::hand_over(directory, &options.common)
}

/// What needs privileges to be opened, after these were given up.
struct Opened {
    input: InputPlan<Intake>,
    sender: Sender,
    /// Packets leave by a way on which the kernel tracks connections.
    tracked: bool,
    local: Option<Local>,
    answers: AnswerSource,
    privileges: PrivilegeStatus,
    /// Removed at the end.
    _pid_file: Option<PidFile>,
}

impl Opened {
    fn open(
        options: &Options,
        (plan, access): (&Plan, Option<&Access>),
        control: Option<&CommandSocket>,
        manager: &ServiceManager,
    ) -> Result<Self, ExitError> {
        let input = plan.input.clone().with_rings(Tap::open).map_err(failed)?;
        let census = plan.census().transpose().map_err(failed)?;
        let (local, answers) = match &plan.local {
            Some(local) => {
                let (local, answers) = Local::set_up(local, &plan.engine)?;
                (Some(local), AnswerSource::Local(Box::new(answers)))
            }
            None => (None, AnswerSource::Links),
        };
        let pid_file = options.common.pid_file.as_deref();
        let pid_file = pid_file.map(PidFile::create).transpose()?;
        let outlet = Outlet::open(&plan.outlet)?;
        let tracked = outlet.is_routed();
        let nice = options.capture.capture_nice;
        let priority = (plan.ring().is_some() && nice < 0).then(|| priority::raise(nice));
        let privileges = privileges::reduce(&options.common, &needs(plan, access, control))?;
        // It inherits the priority, and nobody else does.
        let input = input.with_rings(|tap| {
            let heart = manager.heart("capture");
            let (tunnels, limit) = (plan.tunnels.clone(), plan.pressure.memory);
            Intake::start(tap, census, tunnels, limit, heart)
        })?;
        drop(priority);
        Ok(Self {
            input,
            // It may start a thread, which must not keep privileges.
            sender: outlet.sender(&plan.outlet)?,
            tracked,
            local,
            answers,
            privileges,
            _pid_file: pid_file,
        })
    }
}

/// Begins to connect to interceptors and router-agents, as far as they are known.
fn find_peers(
    plan: &Arc<Plan>,
    (runtime, links): (&Handle, &Handle),
    (inbox, waker): (&Arc<Inbox>, &Waker),
    readiness: &Readiness,
) -> Result<Fleet, ExitError> {
    let interceptors = Interceptors::new(
        plan.clone(),
        links.clone(),
        inbox.clone(),
        readiness.clone(),
    );
    let (waker, ready) = (waker.clone(), readiness.clone());
    let agents = Agents::new(plan.clone(), runtime.clone(), waker, ready);
    Fleet::start(plan, interceptors, agents, readiness, runtime)
}

/// Services in pods are followed from now on, where there are some.
fn follow_pods(
    plan: &Arc<Plan>,
    access: Option<Access>,
    inbox: &Arc<Inbox>,
    runtime: &Handle,
) -> KnownPods {
    let known = KnownPods::default();
    let following = pods::follow(plan.clone(), access, inbox.clone(), known.clone());
    runtime.spawn(following);
    known
}

/// The cluster's plan, where it is followed.
fn follow_plan(plan: &Plan, runtime: &Handle) -> ClusterPlan {
    let followed = plan.consul.as_ref().zip(plan.cluster.as_ref());
    match followed.filter(|_| plan.pilot.follows_plan) {
        Some((client, cluster)) => ClusterPlan::follow(client, cluster, plan.id.clone(), runtime),
        None => ClusterPlan::default(),
    }
}

/// This copier's part in its cluster, if it has one.
fn take_part(
    plan: &Plan,
    admin: &TcpListener,
    monitor: &Monitor,
    runtime: &Handle,
) -> Option<Arc<Membership>> {
    let (client, cluster) = plan.consul.as_ref().zip(plan.cluster.as_ref())?;
    let member = Member {
        id: &plan.id,
        share: plan.engine.share,
        admin: admin.local_addr().ok()?,
    };
    let monitor = monitor.clone();
    let told = move || monitor.told();
    let membership = Membership::begin(client, cluster, &member, told, runtime);
    Some(Arc::new(membership))
}

/// What this copier shows of itself: to operators at its admin port and in its log, and to its cluster.
struct Shown {
    shared: Shared,
    fleet: Fleet,
    monitor: Monitor,
    membership: Option<Arc<Membership>>,
}

impl Shown {
    fn new(
        plan: &Plan,
        (fleet, pods): (&Fleet, &KnownPods),
        leases: Leases,
        admin: &TcpListener,
        runtime: &Handle,
    ) -> Self {
        let shared = Shared::default();
        let copied = (plan.services.as_slice(), plan.report.as_deref());
        let parts = (fleet.clone(), pods.clone());
        let monitor = Monitor::new(copied, shared.clone(), parts, leases);
        if plan.ring().is_some() {
            runtime.spawn(headline::follow(monitor.clone(), plan.summary));
        }
        Self {
            membership: take_part(plan, admin, &monitor, runtime),
            shared,
            fleet: fleet.clone(),
            monitor,
        }
    }

    /// Opens the admin port. It ends with the runtime: while the copier drains, its state is of interest.
    fn serve(
        &self,
        listener: TcpListener,
        plan: &Plan,
        readiness: &Readiness,
        privileges: PrivilegeStatus,
        runtime: &Handle,
    ) -> Result<(), ExitError> {
        let Self {
            shared,
            fleet,
            monitor,
            membership,
        } = self;
        let page = Page::default();
        runtime.spawn(page.clone().follow(shared.clone()));
        let (interceptors, agents) = (fleet.interceptors().clone(), fleet.agents().clone());
        let admin = Admin::new(
            readiness.clone(),
            metrics::registry(shared.clone(), interceptors, agents, monitor.clone()),
            status(shared, fleet.clone(), monitor.clone(), membership.clone()),
        );
        admin
            .merge(control::shown(shared.clone()))
            .merge(page.router())
            .section(plan.security.clone())
            .section(privileges)
            .serve(listener, runtime, std::future::pending())
    }

    /// How things stand, in words.
    fn sentence(&self) -> impl Fn() -> String + Send + 'static {
        let monitor = self.monitor.clone();
        move || monitor.sentence()
    }

    /// Tells the cluster that this copier ends.
    fn leave(&self, runtime: &Handle) {
        if let Some(membership) = &self.membership {
            runtime.block_on(membership.leave());
        }
    }
}

/// Where the sessions come from. A recording is read from now on.
fn open_input(input: InputPlan<Intake>, waker: &Waker) -> Result<Input, ExitError> {
    Ok(match input {
        InputPlan::Rings(intake) => Input::rings(intake),
        InputPlan::Recording(config) => Input::recording(Feed::open(config, waker.clone())?),
    })
}

/// Serves `ctl`; gives the directory of its socket.
fn take_commands(
    control: Option<CommandSocket>,
    commands: &Commands,
    trigger: DrainTrigger,
    log: Log,
    runtime: &Handle,
) -> Result<Option<PathBuf>, ExitError> {
    let Some(control) = control else {
        return Ok(None);
    };
    let directory = control.path().parent().map(Path::to_owned);
    control.serve(control::commands(commands.clone(), trigger, log), runtime)?;
    Ok(directory)
}

/// Says what begins.
fn announce(plan: &Plan) {
    let services: Vec<String> = plan.services.iter().map(ToString::to_string).collect();
    tracing::info!(
        "millrace-copier {}: {}",
        env!("CARGO_PKG_VERSION"),
        services.join(",")
    );
    for line in plan.capacity() {
        tracing::info!("{line}");
    }
    // Those that lead to pods are told as they are found.
    if let Some(ring) = plan.ring().filter(|ring| !ring.devices.is_empty()) {
        tracing::info!("capturing on {}", ring.names());
    }
}

fn failed(error: impl std::error::Error) -> ExitError {
    ExitError::start(error.to_string())
}

/// Makes reports of what the shard shows.
fn show(plan: &Plan, shown: &Shown, traces: &Traces) -> Show {
    let (reports, protocols) = (shown.shared.clone(), plan.protocols.clone());
    let note_spans = traces.noting();
    Box::new(move |snapshot| {
        let mut report = Report::new(snapshot);
        for (kind, ledger) in protocols.ledgers() {
            report.protocols.note(kind, ledger);
        }
        note_spans(&mut report);
        reports.replace(report);
    })
}

/// What the copier needs once its sockets are open.
fn needs(plan: &Plan, access: Option<&Access>, control: Option<&CommandSocket>) -> Needs {
    let directory = control.and_then(|control| control.path().parent());
    let recordings = plan.recording().into_iter().flat_map(FeedConfig::paths);
    let consul = plan.consul.iter();
    let tokens = consul.clone().flat_map(|it| it.settings().files());
    // The socket is removed at the end.
    let sockets = directory.map(Path::to_owned).into_iter();
    Needs {
        // Rings are opened again when a device comes back.
        keep: vec![Capability::NetRaw],
        own: plan.report.iter().cloned().collect(),
        read: recordings
            .chain(tokens)
            .chain(access.into_iter().flat_map(Access::paths))
            .collect(),
        write: sockets
            .chain(consul.map(|_| plan.state_dir.clone()))
            .collect(),
        ..Needs::default()
    }
}

fn status(
    shared: &Shared,
    fleet: Fleet,
    monitor: Monitor,
    membership: Option<Arc<Membership>>,
) -> impl Fn() -> serde_json::Value + Send + Sync + 'static {
    let reports = shared.clone();
    // Which run of the copier this is, for readers that stay longer than it.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let started_at = since.unwrap_or_default().as_secs_f64();
    move || {
        let report = reports.report();
        json!({
            "headline": monitor.headline(&report),
            "recent": monitor.recent(&report),
            "services": monitor.services(),
            "pods": monitor.pods(),
            "version": env!("CARGO_PKG_VERSION"),
            "started_at": started_at,
            "report": report,
            "interceptors": fleet.interceptors().status(),
            "router_agents": fleet.agents().status(),
            "unguarded": fleet.agents().is_unguarded(),
            "consul": fleet.status(),
            "cluster": membership.as_deref().map(Membership::status),
        })
    }
}
