//! How far one replica is, and since when it is not further.

use std::time::Duration;

use skerry_types::{BrokerEpoch, Instant, Offset};

use crate::leader::Visibility;

/// How far one replica is, as it said in this leader epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The registration of its broker.
    pub broker_epoch: BrokerEpoch,
    /// Where its log begins.
    pub log_start: Offset,
    /// Where its log ends.
    pub written_end: Offset,
    /// Up to where its log is on stable storage.
    pub durable_end: Offset,
}

impl Progress {
    /// The end that counts.
    pub(crate) fn end(&self, visibility: Visibility) -> Offset {
        match visibility {
            Visibility::Durable if !skerry_types::is_planted("ack-before-fsync") => self.durable_end,
            _ => self.written_end,
        }
    }
}

/// One replica in its leader's eyes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replica {
    /// `None` until its log was compared with the leader's in this leader epoch.
    pub(crate) progress: Option<Progress>,
    /// Since when it follows no more; `None` while it does.
    gone_since: Option<Instant>,
    /// The last moment at which it had all that the leader had: Kafka's `lastCaughtUpTime`.
    caught_up_at: Instant,
    /// The leader's end at some moment: when the replica reaches it, it had at that moment what it has now.
    mark: (Offset, Instant),
    /// Not to be proposed before this moment: it was refused, or its registration is not the current one.
    held_until: Option<Instant>,
    held_for: Duration,
}

impl Replica {
    /// Nothing is known of it: the time that it is given begins `now`.
    pub(crate) const fn unknown(log_end: Offset, now: Instant) -> Self {
        Self {
            progress: None,
            gone_since: Some(now),
            caught_up_at: now,
            mark: (log_end, now),
            held_until: None,
            held_for: Duration::ZERO,
        }
    }

    pub(crate) fn end(&self, visibility: Visibility) -> Option<Offset> {
        self.progress.map(|progress| progress.end(visibility))
    }

    pub(crate) fn on_progress(
        &mut self,
        progress: Progress,
        visibility: Visibility,
        log_end: Offset,
        now: Instant,
    ) {
        if self
            .progress
            .is_none_or(|known| known.broker_epoch != progress.broker_epoch)
        {
            (self.held_until, self.held_for) = (None, Duration::ZERO);
        }
        self.progress = Some(progress);
        self.gone_since = None;
        let end = progress.end(visibility);
        if end >= log_end {
            self.caught_up_at = now;
            self.mark = (log_end, now);
        } else if end >= self.mark.0 {
            self.caught_up_at = self.caught_up_at.max(self.mark.1);
            self.mark = (log_end, now);
        }
    }

    /// The leader's log is about to grow from `log_end`: whoever has all of it was caught up until now.
    pub(crate) fn before_growth(&mut self, visibility: Visibility, log_end: Offset, now: Instant) {
        if self.end(visibility).is_some_and(|end| end >= log_end) {
            self.caught_up_at = now;
            self.mark = (log_end, now);
        }
    }

    /// It has not followed in this leader epoch: until then it may take itself for the leader of an earlier one.
    pub(crate) fn may_stand_until(&self, standing_max: Duration) -> Instant {
        match self.progress {
            // Nothing is known of it since then.
            None => self.caught_up_at + standing_max,
            Some(_) => self.caught_up_at,
        }
    }

    pub(crate) fn on_gone(&mut self, now: Instant) {
        self.gone_since.get_or_insert(now);
    }

    pub(crate) const fn follows(&self) -> bool {
        self.gone_since.is_none()
    }

    /// When it counts as silent; `None` while it follows.
    pub(crate) fn silent_at(&self, silence_max: Duration) -> Option<Instant> {
        self.gone_since.map(|since| since + silence_max)
    }

    /// When it counts as lagging; `None` where it has all that the leader has.
    pub(crate) fn lagging_at(
        &self,
        visibility: Visibility,
        log_end: Offset,
        lag_max: Duration,
    ) -> Option<Instant> {
        let has_all = self.end(visibility).is_some_and(|end| end >= log_end);
        (!has_all).then(|| self.caught_up_at + lag_max)
    }

    /// It is not proposed for a while; each time twice as long, until it registers again or is accepted.
    pub(crate) fn hold(&mut self, now: Instant, least: Duration, most: Duration) {
        self.held_for = (self.held_for * 2).clamp(least, most);
        self.held_until = Some(now + self.held_for);
    }

    pub(crate) const fn release(&mut self) {
        (self.held_until, self.held_for) = (None, Duration::ZERO);
    }

    pub(crate) const fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    pub(crate) fn is_held(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }
}
