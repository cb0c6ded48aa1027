//! How much is copied, from what the operator wrote: one number, or a ramp.

use std::hash::Hasher;

use millrace_daemon::exit::ExitError;
use millrace_engine::{Config, Intensity, IntensityKey, SourcePool};
use siphasher::sip128::{Hasher128, SipHasher24};

use crate::options::IntensityOptions;
use millrace_pilot::PilotConfig;
use millrace_pilot::ramp::Ramp;

/// The options that say how much, as they were given.
fn said(options: &IntensityOptions) -> Vec<(String, Intensity)> {
    let mut said = Vec::new();
    // One replica of each session is what is copied anyway: it contradicts nothing. Beside -r it is the factor.
    let count = options.replicas.filter(|count| *count > 1);
    if let (Some(count), None) = (count, options.percent) {
        said.push((format!("-n {count}"), Intensity::replicas(count)));
    }
    if let Some(percent) = options.percent {
        said.push((format!("-r {percent}"), percent.intensity()));
    }
    if let Some(intensity) = options.intensity {
        said.push((format!("--intensity {intensity}"), intensity));
    }
    said
}

/// The intensity that -n, -r or --intensity says.
///
/// # Errors
/// Two of them that contradict each other.
pub(super) fn constant(options: &IntensityOptions) -> Result<Intensity, ExitError> {
    let said = said(options);
    if let [(first, a), (second, b), ..] = said.as_slice()
        && a != b
    {
        let product = Intensity::from_ratio(a.as_ratio() * b.as_ratio());
        return Err(ExitError::usage(format!(
            "{first} and {second} both say how much is copied: give one number; --intensity \
             {product} copies as much as both together"
        )));
    }
    Ok(said
        .first()
        .map_or(Intensity::ONE, |(_, intensity)| *intensity))
}

/// How many replicas each chosen session gets for one: -r chooses sessions, -n beside it says how often each is copied.
pub(super) fn factor(options: &IntensityOptions) -> u16 {
    let count = options.replicas.filter(|_| options.percent.is_some());
    count.unwrap_or(1)
}

/// The key of the hash that chooses sessions.
pub(super) fn key(options: &IntensityOptions) -> IntensityKey {
    let mut hasher = SipHasher24::new();
    hasher.write(
        options
            .intensity_key
            .as_deref()
            .unwrap_or_default()
            .as_bytes(),
    );
    hasher.finish128().as_bytes()
}

/// What the pilot is told.
///
/// # Errors
/// A ramp beside something else that says how much.
pub(super) fn pilot(
    options: &IntensityOptions,
    engine: &Config,
    follows_plan: bool,
) -> Result<PilotConfig, ExitError> {
    if follows_plan && (options.ramp.is_some() || options.gradual) {
        return Err(ExitError::usage(
            "--follow-plan leaves the ramp to the cluster's plan: leave out --ramp and -g, and begin it with \
             `millrace-copier ctl --consul URL --cluster NAME ramp STAGES`",
        ));
    }
    if let (Some(_), Some((other, _))) = (&options.ramp, said(options).first()) {
        return Err(ExitError::usage(format!(
            "--ramp and {other} both say how much is copied: end the ramp with that level instead"
        )));
    }
    if options.ramp.is_some() && options.gradual {
        return Err(ExitError::usage(
            "-g is a ramp of its own (0..100%/100s): leave out -g or --ramp",
        ));
    }
    let gradual = options.gradual.then(|| Ramp::gradual(engine.intensity));
    let unlimited = follows_plan && said(options).is_empty();
    Ok(PilotConfig {
        intensity: match unlimited {
            true => Intensity::MAX,
            false => engine.intensity,
        },
        factor: engine.factor,
        ramp: options.ramp.clone().or(gradual),
        guards: options
            .guards
            .clone()
            .map_or_else(Vec::new, |guards| guards.0),
        window: options.guard_window,
        min_sample: options.guard_sample.into(),
        follows_plan,
    })
}

/// What the sources can hold at the same time, in words; nothing where it is the clients' own
/// ports that count.
pub(super) fn capacity(engine: &Config) -> Vec<String> {
    let share = match engine.share {
        Some(share) => format!("share {} of {}", share.index(), share.of()),
        None => "all".to_owned(),
    };
    if matches!(engine.sources, SourcePool::Clients) {
        let space = engine.space(true);
        let each = space.capacity().per_address;
        let first = match space.preferred() {
            Some(first) => format!(", {first} of them from the share"),
            None => String::new(),
        };
        let line = format!(
            "{share} of the source ports (-f): at most {each} copied connections at the same time \
             for each client address and target{first}"
        );
        return engine.share.map(|_| line).into_iter().collect();
    }
    [(true, "IPv4"), (false, "IPv6")]
        .into_iter()
        .filter(|(v4, _)| engine.services.iter().any(|s| s.target.ip.is_ipv4() == *v4))
        .map(|(v4, family)| {
            let capacity = engine.space(v4).capacity();
            let addresses = capacity.addresses.unwrap_or(0);
            let all = addresses.saturating_mul(capacity.per_address.into());
            let rest = match engine.share {
                Some(_) => "",
                None => " that no other copier claims",
            };
            format!(
                "{share} of the client pool{rest}: {addresses} {family} addresses with {} ports each: at \
                 most {all} copied connections at the same time for each target",
                capacity.per_address
            )
        })
        .collect()
}
