//! `skerry-sim`: runs the shipped node in a simulated world, and says which promises it broke.
#![forbid(unsafe_code)]

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
