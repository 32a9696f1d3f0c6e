use std::fmt;

macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number, for the wire and for arithmetic.
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

quantity! {
    /// A position in one partition's log. The first record ever written has offset 0.
    Offset(i64)
}
quantity! {
    /// Counts the leaderships of one partition; grows by one with every leader (KIP-101). -1: unknown.
    LeaderEpoch(i32)
}
quantity! {
    /// Counts the changes of one partition's state in the metadata.
    PartitionEpoch(i32)
}
quantity! {
    /// The metadata log's index at which a broker registered: unique, growing (KIP-903).
    BrokerEpoch(i64)
}
quantity! {
    /// Names an idempotent or transactional producer, unique in a cluster for ever. -1: none.
    ProducerId(i64)
}
quantity! {
    /// Fences the earlier instances of a producer. -1: none.
    ProducerEpoch(i16)
}
quantity! {
    /// Counts an idempotent producer's records in one partition; wraps from `i32::MAX` to 0. -1: none.
    Sequence(i32)
}

impl Offset {
    /// The first offset of every log.
    pub const ZERO: Self = Self(0);

    /// The offset `records` later.
    #[must_use]
    pub const fn plus(self, records: i64) -> Self {
        Self(self.0 + records)
    }

    /// The offset that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl LeaderEpoch {
    /// "Not known", or "do not check".
    pub const UNKNOWN: Self = Self(-1);
}

impl ProducerId {
    /// A batch without a producer identity.
    pub const NONE: Self = Self(-1);
}

impl ProducerEpoch {
    /// A batch without a producer identity.
    pub const NONE: Self = Self(-1);
}

impl Sequence {
    /// A batch without a sequence.
    pub const NONE: Self = Self(-1);

    /// The sequence `records` later, as Kafka's `DefaultRecordBatch.incrementSequence` wraps it.
    #[must_use]
    pub const fn plus(self, records: i32) -> Self {
        if self.0 > i32::MAX - records {
            Self(records - (i32::MAX - self.0) - 1)
        } else {
            Self(self.0 + records)
        }
    }
}

/// A producer id and the epoch that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerIdentity {
    /// The producer's id.
    pub id: ProducerId,
    /// The instance of that producer.
    pub epoch: ProducerEpoch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero_after_the_largest() {
        assert_eq!(Sequence(5).plus(1), Sequence(6));
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 2).plus(5), Sequence(2));
    }
}
