use clap::Args;
#[derive(Debug, Args)]
pub(crate) struct Options {}
pub(crate) fn run(_: &Options) -> millrace_lab::Result<bool> {
    Ok(true)
}
