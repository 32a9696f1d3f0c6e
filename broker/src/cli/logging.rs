//! What the program tells on stderr while it works.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::failure::Failure;

/// Starts logging by `filter`. openraft and h2 say a lot that only their authors need: a first start alone has
/// openraft warn of its own vote.
pub(super) fn start(filter: &str) -> Result<(), Failure> {
    let quiet = "openraft=error,h2=warn,hyper=warn,tonic=warn";
    let directives = if filter.contains(['=', ',']) {
        filter.to_owned()
    } else {
        format!("{filter},{quiet}")
    };
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        Failure::new(format!("--log-level {filter}: {error}")).hint(
            "allowed are error, warn, info, debug, trace, or a filter such as skerry=debug,openraft=warn",
        )
    })?;
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(color)
        .with_target(false)
        .finish();
    // Only a test that runs several commands in one process finds one set already.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}
