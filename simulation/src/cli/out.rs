//! Standard output. Whoever closes it (`| head`) has read enough: the program ends without a word.

use std::fmt;
use std::io::{ErrorKind, Write as _};

/// What a shell shows for a program that SIGPIPE has ended: 128 and the signal's number.
const CLOSED: i32 = 141;

/// Writes a line.
macro_rules! say {
    ($($word:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($word)*))) };
}
pub(super) use say;

/// Writes text as it is.
pub(super) fn write(text: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(CLOSED),
        Err(error) => {
            eprintln!("skerry-sim: cannot write: {error}");
            std::process::exit(2);
        }
    }
}
