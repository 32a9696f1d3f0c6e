//! The classic consumer groups of one partition of `__consumer_offsets`: pure, input in, effects out.
//!
//! A [`GroupShard`] holds every group of one partition. It reads no clock, draws no random number and does no I/O:
//! time comes in as [`Now`], randomness as [`JoinRequest::new_member_id`], durability as
//! [`GroupShard::on_appended`]. What clients may see (offsets, assignments) changes only when its append is durable,
//! and the answer leaves after that: the order of the effects is the order in which they must happen.
//!
//! How a shell drives it, one task for each partition that this broker leads:
//!
//! ```text
//! let mut shard = GroupShard::new(settings);            // answers NOT_COORDINATOR
//! on becoming leader:
//!     shard.start_loading();                            // answers COORDINATOR_LOAD_IN_PROGRESS
//!     for each batch of the log up to the high watermark:
//!         control batch  -> shard.replay_marker(producer_id, end)
//!         other batches  -> shard.replay(origin, &key, value) for each record; an Err is logged and skipped
//!     run(shard.finish_loading(now))                    // serves
//!     gone = shard.topics_with_offsets() that do not exist any more
//!     run(shard.on_topics_deleted(&gone, now))          // deleted while nobody served the partition
//! loop {
//!     biased select:
//!         stopped or no longer leader -> { run(shard.unload()); break }
//!         appended(id, result)        -> run(shard.on_appended(id, result, now))
//!         request(token, request)     -> run(shard.handle(token, request, now))
//!         topics deleted(names)       -> run(shard.on_topics_deleted(&names, now))
//!         shard.next_deadline() is due -> run(shard.on_tick(now))
//! }
//! run(effects): for each effect, in order:
//!     Append { records, then } -> start the append (acks=all, offsets.commit.timeout.ms) without waiting for it;
//!                                 its outcome comes back as appended(then, Ok(base offset) | Err(failure)),
//!                                 successes in the order of the appends
//!     Reply(token, response)   -> encode for the request's version and send
//!     Event(event)             -> log it, count it
//! ```
//!
//! The shell answers itself: unknown topics, authorisation, FindCoordinator ([`partition_for`]), a null group id.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod admin;
mod api;
mod append;
mod check;
mod context;
mod group;
mod join;
mod load;
mod member_requests;
mod offsets;
mod rebalance;
pub mod records;
mod shard;
mod subscription;
mod timers;

pub use api::*;
pub use shard::GroupShard;

/// The partition of `__consumer_offsets` that a group belongs to: Java's `String.hashCode` (over UTF-16), without its
/// sign, modulo the number of partitions. The hash that has no positive counterpart counts as 0, as in Kafka.
///
/// # Panics
/// If `partitions` is not positive.
#[must_use]
pub fn partition_for(group_id: &str, partitions: i32) -> i32 {
    assert!(
        partitions > 0,
        "a topic has at least one partition, not {partitions}"
    );
    let hash = group_id.encode_utf16().fold(0_i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    hash.checked_abs().unwrap_or(0) % partitions
}

#[cfg(test)]
mod tests {
    use super::partition_for;

    #[test]
    fn groups_go_where_java_sends_them() {
        // "polygenelubricants" hashes to Integer.MIN_VALUE; the others are small enough to check by hand.
        assert_eq!(partition_for("polygenelubricants", 50), 0);
        assert_eq!(partition_for("", 50), 0);
        assert_eq!(partition_for("a", 50), 97 % 50);
        assert_eq!(partition_for("ab", 50), (97 * 31 + 98) % 50);
        // U+1D11E is two units in UTF-16: D834 DD1E.
        let hash = 0xD834_i32.wrapping_mul(31).wrapping_add(0xDD1E);
        assert_eq!(partition_for("\u{1D11E}", 50), hash.abs() % 50);
    }
}
