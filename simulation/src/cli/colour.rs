//! Colours, where a terminal shows them (https://no-color.org).

use std::io::IsTerminal as _;
use std::sync::OnceLock;

pub(super) const BOLD: &str = "1";
pub(super) const DIM: &str = "2";
pub(super) const RED: &str = "31";
pub(super) const GREEN: &str = "32";
pub(super) const YELLOW: &str = "33";

/// The text in this way, or as it is where nobody would see it.
pub(super) fn paint(how: &[&str], text: &str) -> String {
    static ON: OnceLock<bool> = OnceLock::new();
    let is_on = *ON.get_or_init(|| {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        !cfg!(test) && std::io::stdout().is_terminal() && !unwanted && !dumb
    });
    if is_on && !how.is_empty() && !text.trim().is_empty() {
        format!("\x1b[{}m{text}\x1b[0m", how.join(";"))
    } else {
        text.to_owned()
    }
}
