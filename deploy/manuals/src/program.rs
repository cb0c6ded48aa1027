//! The programs.

use millrace_daemon::config;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// millrace-copier.
    Copier,
    /// millrace-interceptor.
    Interceptor,
    /// millrace-router-agent.
    RouterAgent,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Copier, Self::Interceptor, Self::RouterAgent];

    /// What it is called on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copier => "millrace-copier",
            Self::Interceptor => "millrace-interceptor",
            Self::RouterAgent => "millrace-router-agent",
        }
    }

    /// What its files in /etc/millrace are called.
    pub const fn role(self) -> &'static str {
        match self {
            Self::Copier => "copier",
            Self::Interceptor => "interceptor",
            Self::RouterAgent => "router-agent",
        }
    }

    /// Its command line, the commands among it.
    pub fn command(self) -> clap::Command {
        config::prepare(match self {
            Self::Copier => millrace_copier::cli::command_line(),
            Self::Interceptor => millrace_interceptor::cli::command_line(),
            Self::RouterAgent => {
                <millrace_router_agent::options::Options as clap::CommandFactory>::command()
            }
        })
    }
}
