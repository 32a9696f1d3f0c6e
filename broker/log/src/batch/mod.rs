//! Kafka's record batch, version 2 (KIP-98): the unit on the wire, on disk and between replicas.

mod builder;
mod compression;
mod header;
mod records;

pub(crate) use builder::encode_record;
pub use builder::{BatchBuilder, MarkerType, end_transaction_marker};
pub(crate) use compression::unpack;
pub use compression::{Codec, Compression};
pub use header::{Batch, BatchHeader, Batches, HEADER_BYTES, LENGTH_OVERHEAD, MAGIC};
pub use records::{BrokenRecords, Header, Record, Records, control_marker};
pub(crate) use records::{RecordShape, walk_records};
