//! The `skerry` binary. Everything is in the library.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    skerry::cli::main()
}
