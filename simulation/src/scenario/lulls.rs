//! Quiet windows.

use serde::{Deserialize, Serialize};
use skerry_env::Rng;

use crate::trace::fnv_of;

/// When nobody begins to write or to read: some mistakes need that nothing follows (an end that nobody tells, a lease that
/// nobody renews), and a quiet cluster costs the simulator a fifth of a busy one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lulls {
    /// From the end of one to the end of the next.
    pub every_ms: u64,
    /// Of these it lasts the last ones.
    pub for_ms: u64,
}

impl Lulls {
    /// How long the lull of this moment still lasts; 0 = there is none.
    #[must_use]
    pub const fn left_ms(self, now_ms: u64) -> u64 {
        let at = now_ms % self.every_ms;
        if at + self.for_ms < self.every_ms {
            0
        } else {
            self.every_ms - at
        }
    }
}

/// In two worlds of three, for two to four fifths of the time.
pub(super) fn draw_lulls(seed: u64) -> Option<Lulls> {
    let rng = Rng::seeded(seed ^ fnv_of(b"lulls"));
    let every_ms = 1_500 + rng.below(2_500);
    let for_ms = every_ms * (2 + rng.below(3)) / 5;
    rng.chance(2, 3).then_some(Lulls { every_ms, for_ms })
}
