//! `std::time::Instant`, as a thread that simulates sets it.
//!
//! Skerry reads no clock but `skerry_env`'s; libraries do. h2 forgets a stream that was given up after a second of
//! `std::time::Instant`, and what it answers to a late frame follows from that: seeds 54 and 69 of three nodes went two ways
//! on a busy machine. hyper gives its callers no say in it. So the symbol behind `Instant` is defined here, in front of the
//! C library's: a thread that has called [`set`] sees what it has set, all others the machine's clock.
//!
//! The C library's own waits do not go through this symbol: they still last as long as they say.
//!
//! Only the simulator links this. A foreign function cannot be defined without unsafe code, hence a crate of its own; all
//! others forbid it.

use std::cell::Cell;
use std::time::Duration;

use libc::{CLOCK_MONOTONIC, c_int, c_long, clockid_t, timespec};

/// Far from zero: libraries subtract from what they read.
const BEGIN: Duration = Duration::from_secs(1_000_000);

thread_local! {
    // Has no destructor and needs no initialisation: it may be read at any moment of a thread's life.
    static SET: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// On this thread it is so long after the begin, until it is set again.
pub fn set(since_begin: Duration) {
    SET.set(Some(BEGIN + since_begin));
}

/// How long after the begin it is on this thread; nothing where it has set nothing.
#[must_use]
pub fn elapsed() -> Duration {
    SET.get().map_or(Duration::ZERO, |now| now.saturating_sub(BEGIN))
}

/// This thread sees the machine's clock again.
pub fn unset() {
    SET.set(None);
}

/// In front of the C library's: see the module.
///
/// # Safety
/// As that one: `time` is null or may be written.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if clock == CLOCK_MONOTONIC
        && let Some(set) = SET.get()
        && !time.is_null()
    {
        let now = timespec {
            tv_sec: i64::try_from(set.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: c_long::from(set.subsec_nanos()),
        };
        // SAFETY: not null, and the caller's promise.
        unsafe { time.write(now) };
        return 0;
    }
    // SAFETY: the system call takes these two, and the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
    // It sets `errno` as the C library's does.
    if result == 0 { 0 } else { -1 }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the clock of `std` is what is tested")]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_thread_sees_what_it_has_set_and_no_other_thread_does() {
        let real = Instant::now();
        set(Duration::from_secs(3));
        let first = Instant::now();
        assert_eq!(Instant::now(), first);
        set(Duration::from_secs(5));
        assert_eq!(Instant::now() - first, Duration::from_secs(2));
        let elsewhere = std::thread::spawn(Instant::now).join().expect("it reads a clock");
        assert!(elsewhere >= real && elsewhere - real < Duration::from_secs(3_600));
        unset();
        assert!(Instant::now() >= elsewhere);
    }
}
