//! The state machine for openraft: applies commands to the pure state, publishes images, keeps snapshots.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use skerry_env::Tasks;
use skerry_metadata_state::{Delta, Image, Outcome, State};
use skerry_types::reached;

use super::log::Flusher;
use super::room::Room;
use super::snapshot::{Snapshots, Stored};
use super::store::Store;
use super::types::{LogId, Proposal, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};
use crate::publish::Publisher;

/// The pure state with what openraft wants to know of it. In memory: a restart takes the snapshot and applies the
/// log after it again.
pub(crate) struct Machine {
    state: State,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    publisher: Arc<Publisher>,
    snapshots: Snapshots,
}

fn decode(data: &[u8]) -> io::Result<Image> {
    Image::decode(data).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl Machine {
    /// The state of the snapshot in `store`, or an empty one.
    pub(crate) fn load(store: Arc<Store>, flusher: Flusher, tasks: Tasks, room: Room) -> io::Result<Self> {
        let snapshots = Snapshots::load(store, flusher, tasks, room)?;
        let (image, last_applied, membership) = match snapshots.current() {
            Some(Snapshot { meta, snapshot }) => {
                (decode(&snapshot.read()?)?, meta.last_log_id, meta.last_membership)
            }
            None => (Image::default(), None, StoredMembership::default()),
        };
        let state = State::from_image(image);
        let publisher = Publisher::new(Arc::clone(state.image()));
        Ok(Self {
            state,
            last_applied,
            membership,
            publisher,
            snapshots,
        })
    }

    pub(crate) fn publisher(&self) -> &Arc<Publisher> {
        &self.publisher
    }

    pub(crate) fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = Stored;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let index = entry.log_id.index;
            let (outcome, deltas) = match entry.payload {
                // The first entry of a log has index 0, where the empty image already is.
                EntryPayload::Blank | EntryPayload::Membership(_) if index == 0 => {
                    (Outcome::Done, Vec::new())
                }
                EntryPayload::Blank | EntryPayload::Membership(_) => {
                    self.state.skip(index);
                    (Outcome::Done, Vec::new())
                }
                EntryPayload::Normal(Proposal(ref command)) => {
                    let applied = self.state.apply(index, command);
                    (applied.outcome, applied.deltas)
                }
            };
            if let EntryPayload::Membership(membership) = entry.payload {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
            self.last_applied = Some(entry.log_id);
            // Visible first, answered second: a proposer reads its own writes.
            self.publisher.publish(self.state.image(), deltas);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            image: Arc::clone(self.state.image()),
            meta: SnapshotMeta {
                last_log_id: self.last_applied,
                last_membership: self.membership.clone(),
            },
            snapshots: self.snapshots.clone(),
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Stored) -> Result<(), io::Error> {
        reached("metadata-snapshot-installed");
        let pieces = snapshot.clone();
        let image = self.snapshots.blocking(move || decode(&pieces.read()?)).await?;
        self.snapshots.adopt(meta.clone(), snapshot).await?;
        self.state = State::from_image(image);
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publisher.publish(self.state.image(), vec![Delta::Reset]);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshots.current())
    }
}

/// Writes one image down while the state machine goes on.
pub(crate) struct Builder {
    image: Arc<Image>,
    meta: SnapshotMeta,
    snapshots: Snapshots,
}

impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = Stored;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let image = Arc::clone(&self.image);
        let data = Bytes::from(self.snapshots.blocking(move || image.encode()).await);
        let snapshot = self.snapshots.write(data).await?;
        self.snapshots.adopt(self.meta.clone(), snapshot.clone()).await?;
        reached("metadata-snapshot-made");
        Ok(Snapshot {
            meta: self.meta.clone(),
            snapshot,
        })
    }
}
