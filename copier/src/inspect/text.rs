//! Findings for people.

use std::fmt;
use std::net::IpAddr;

use millrace_notation::units::shown;
use millrace_recordings::inspect::findings::{FileFindings, Findings, ServiceFindings};

use super::foretold::Service;

/// Services that are listed without `--all`.
const LISTED: usize = 20;

/// Shows findings.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// What to show.
    pub findings: &'a Findings<Service>,
    /// Every service.
    pub all: bool,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Findings {
            seconds,
            longest_pause_seconds,
            tcp_packets,
            other_packets,
            others,
            malformed_packets,
            damaged_packets,
            fragments,
            forgotten_connections,
            services,
            files,
            replay_options: _,
        } = self.findings;
        for file in files {
            show_file(f, file)?;
        }
        writeln!(
            f,
            "{seconds:.3} s, longest pause {longest_pause_seconds:.3} s; {tcp_packets} TCP segments, \
             {other_packets} other packets, {malformed_packets} malformed, {fragments} fragments"
        )?;
        if *damaged_packets > 0 {
            writeln!(
                f,
                "{damaged_packets} TCP segments were damaged (their checksum is wrong among right ones): \
                 left out, as their receiver left them out"
            )?;
        }
        if !others.is_empty() {
            let mut named: Vec<_> = others.iter().collect();
            named.sort_by_key(|(name, count)| (std::cmp::Reverse(**count), (*name).clone()));
            let named = named.into_iter().take(LISTED);
            let named: Vec<String> = named
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            writeln!(
                f,
                "not TCP, or in a tunnel that is not looked into: {}",
                named.join(", ")
            )?;
        }
        if *forgotten_connections > 0 {
            writeln!(
                f,
                "{forgotten_connections} connections were counted before their end: too many were open"
            )?;
        }
        if services.is_empty() {
            return writeln!(f, "no TCP connection in it: nothing to replay");
        }
        let listed = if self.all { services.len() } else { LISTED };
        for service in services.iter().take(listed) {
            writeln!(f)?;
            show_service(f, service)?;
        }
        if services.len() > listed {
            writeln!(
                f,
                "\n{} more services with less traffic: --all lists them",
                services.len() - listed
            )?;
        }
        self.suggest(f)
    }
}

impl Shown<'_> {
    /// The command that would replay the largest service.
    fn suggest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let largest = self
            .findings
            .services
            .iter()
            .find(|one| one.found.client.bytes > 0);
        let Some(Service { found: service, .. }) = largest else {
            return writeln!(f, "\nno client sent a byte: nothing to replay");
        };
        let names: Vec<&str> = self
            .findings
            .files
            .iter()
            .map(|file| file.name.as_str())
            .collect();
        let port = service.port;
        let mut options = self.findings.replay_options.clone();
        let elsewhere = ["-s", "--interceptors", "--local"];
        if !options
            .iter()
            .any(|word| elsewhere.iter().any(|it| word.starts_with(it)))
        {
            options.push("--local".to_owned());
        }
        writeln!(
            f,
            "\nto replay {0}:{port}, with the target's address for TARGET:\n  millrace-copier -i {1} -x \
             {0}:{port}-TARGET:{port} {2}",
            host(&service.address),
            names.join(","),
            options.join(" ")
        )
    }
}

fn show_file(f: &mut fmt::Formatter<'_>, file: &FileFindings) -> fmt::Result {
    let mut links: Vec<&str> = file
        .interfaces
        .iter()
        .map(|one| one.link_type.as_str())
        .collect();
    links.dedup();
    writeln!(
        f,
        "{}: {}, {}, {} packets, {} bytes{}",
        file.name,
        file.format,
        links.join(" and "),
        file.packets,
        file.bytes,
        match file.cut_packets {
            0 => String::new(),
            cut => format!(", {cut} packets cut by the snap length"),
        }
    )?;
    let dropped: Vec<u64> = file
        .interfaces
        .iter()
        .filter_map(|one| one.dropped)
        .collect();
    if !dropped.is_empty() {
        let dropped = dropped.into_iter().fold(0, u64::saturating_add);
        writeln!(f, "  the recorder says that it dropped {dropped} packets")?;
    }
    for (link, count) in &file.foreign_packets {
        writeln!(f, "  {count} packets left out: {link} is not understood")?;
    }
    if let Some(problem) = &file.problem {
        writeln!(f, "  {problem}")?;
    }
    Ok(())
}

fn show_service(f: &mut fmt::Formatter<'_>, service: &Service) -> fmt::Result {
    let found = &service.found;
    let ServiceFindings {
        sessions,
        without_beginning,
        without_end,
        reset,
        refused,
        without_responses,
        client,
        server,
        ..
    } = found;
    writeln!(
        f,
        "{}:{}  {sessions} sessions, {:.3} s to {:.3} s",
        host(&found.address),
        found.port,
        found.first_seconds,
        found.last_seconds
    )?;
    writeln!(
        f,
        "  begun before {without_beginning}, open at the end {without_end}, reset {reset}, refused \
         {refused}, without responses {without_responses}"
    )?;
    for (name, side) in [("clients", client), ("server", server)] {
        writeln!(
            f,
            "  {name:<8} {} bytes in {} packets; missing {}, repeated {}, out of order {}, cut {}",
            side.bytes,
            side.packets,
            side.missing,
            side.repeated,
            side.out_of_order,
            side.cut_packets
        )?;
    }
    match (&service.replay, &service.replay_unknown) {
        (Some(replay), _) if replay.complete && replay.delivered >= 1.0 => {
            writeln!(f, "  a replay will be complete")?;
        }
        (Some(replay), _) => writeln!(
            f,
            "  a replay will {}: {} of the clients' bytes delivered",
            match replay.complete {
                true => "do as asked (exit code 0)",
                false => "not be complete (exit code 2)",
            },
            shown(replay.delivered)
        )?,
        (None, why) => writeln!(
            f,
            "  what a replay will come to is not foretold: {}",
            why.as_deref().unwrap_or("it was not asked for")
        )?,
    }
    for obstacle in service.obstacles() {
        writeln!(f, "    {obstacle}")?;
    }
    if *without_responses == *sessions {
        writeln!(
            f,
            "  only clients were recorded: turns wait until the target's answer is quiet"
        )?;
    }
    Ok(())
}

/// An address as it stands before a port.
fn host(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(_)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => address.to_owned(),
    }
}
