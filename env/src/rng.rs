use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngCore as _, SeedableRng as _};
use skerry_types::Uuid;

/// The random numbers of one node. Clones share one stream.
#[derive(Clone)]
pub struct Rng(Arc<Mutex<StdRng>>);

impl Rng {
    /// Seeded from the operating system.
    #[must_use]
    pub fn from_os() -> Self {
        Self(Arc::new(Mutex::new(StdRng::from_os_rng())))
    }

    /// The same seed draws the same numbers.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// 64 random bits.
    #[must_use]
    pub fn u64(&self) -> u64 {
        self.0.lock().next_u64()
    }

    /// A number in `0..bound`; 0 for a bound of 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        // Multiply-shift: the bias is below 2^-32 for every bound that this program uses.
        u64::try_from((u128::from(self.u64()) * u128::from(bound)) >> 64).unwrap_or(0)
    }

    /// True `numerator` times in `denominator`.
    #[must_use]
    pub fn chance(&self, numerator: u64, denominator: u64) -> bool {
        self.below(denominator) < numerator
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }

    /// A random (version 4) id whose text does not begin with a dash: tools would take it for an option
    /// (`--controller-directory-id -4RBF…`), so Kafka's own `Uuid.randomUuid` makes none either.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            self.fill(&mut bytes);
            let id = Uuid::from_random(bytes);
            if !id.to_string().starts_with('-') {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn no_id_looks_like_an_option() {
        let rng = Rng::seeded(1);
        // One in 64 would.
        let ids: Vec<String> = (0..10_000).map(|_| rng.uuid().to_string()).collect();
        assert_eq!(ids.iter().find(|id| id.starts_with('-')), None);
        assert!(ids.iter().any(|id| id.starts_with('_')));
    }
}
