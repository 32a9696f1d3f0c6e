//! The handle that the broker holds.

use std::sync::Arc;

use skerry_env::Env;
use skerry_metadata_state::{Command, FEATURE_LEVEL, Image, Outcome};
use skerry_types::{BrokerId, Uuid};
use tonic::service::RoutesBuilder;

use crate::config::QuorumConfig;
use crate::errors::{MembershipError, ProposeError, ReadError, StartError};
use crate::identity;
use crate::publish::ImageWatch;
use crate::raft::Node;
use crate::status::{Leadership, LogEntry, QuorumStatus, StoreTrouble};

/// This node's part of the metadata quorum. Cheap to clone.
#[derive(Clone)]
pub struct Quorum {
    node: Node,
}

impl Quorum {
    /// Opens the store and takes part. A quorum of one leads, and has named its cluster, on return; a voter of a larger
    /// one is still looking for the others, and a node that is no voter is on its way to join as a learner.
    ///
    /// `extra_routes` adds the broker's own gRPC services to the port.
    ///
    /// # Errors
    /// The directory is another node's, of a newer version, in use or damaged; the address cannot be listened on.
    pub async fn start(
        env: Env,
        config: QuorumConfig,
        extra_routes: impl FnOnce(&Self, &mut RoutesBuilder),
    ) -> Result<Self, StartError> {
        // The address first: a port in use must not leave a trace on the disk.
        let addr = config.listen.clone();
        let listener = env
            .net
            .bind(&addr)
            .await
            .map_err(|source| StartError::Listen { addr, source })?;
        let (disk, dir, id) = (Arc::clone(&env.disk), config.data_dir.clone(), config.node_id);
        let fresh = env.rng.uuid();
        let directory = env
            .tasks
            .run_blocking(move || identity::claim(&*disk, &dir, id, fresh))
            .await?;
        let addr = config.address(listener.local_addr());
        let quorum = Self {
            node: Node::open(env, config, addr, directory).await?,
        };
        let mut routes = RoutesBuilder::default();
        extra_routes(&quorum, &mut routes);
        quorum.node.serve(listener, routes);
        quorum.node.join().await?;
        quorum.name_cluster().await?;
        Ok(quorum)
    }

    /// A new cluster gets its id: from a sole voter now, else from whoever leads first.
    async fn name_cluster(&self) -> Result<(), StartError> {
        let config = self.node.config();
        let (wanted, sole) = (config.cluster_id, config.is_sole_voter());
        if self.image().cluster_id().is_none() {
            let cluster_id = wanted.unwrap_or_else(|| self.node.env().rng.uuid());
            if sole {
                self.init_cluster(cluster_id)
                    .await
                    .map_err(|error| StartError::Raft(error.to_string()))?;
            } else {
                let quorum = self.clone();
                // Ends with the first leader's success or with the node.
                drop(self.node.env().tasks.spawn("name-cluster", async move {
                    while let Err(ProposeError::Timeout(_)) = quorum.init_cluster(cluster_id).await {}
                }));
            }
        }
        match (wanted, self.image().cluster_id()) {
            (Some(wanted), Some(found)) if wanted != found => Err(StartError::OtherCluster { found, wanted }),
            _ => Ok(()),
        }
    }

    async fn init_cluster(&self, cluster_id: Uuid) -> Result<Outcome, ProposeError> {
        self.propose(Command::InitCluster {
            cluster_id,
            feature_level: FEATURE_LEVEL,
        })
        .await
    }

    /// The newest metadata that this node has. Does not wait, and costs a reference count.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.node.publisher().image()
    }

    /// Follows the changes from now on. Take the watch first and its image then: what comes in between is told.
    #[must_use]
    pub fn watch(&self) -> ImageWatch {
        self.node.publisher().watch()
    }

    /// How many entries have changed something, counted as [`ImageWatch::seen`] counts them.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.node.publisher().changes()
    }

    /// Lets the quorum decide on a command: here if this node leads, otherwise through the leader. On return the
    /// command is applied here: [`Quorum::image`] shows what it did.
    ///
    /// # Errors
    /// Nobody decided within the time, or this node has stopped.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        self.node.propose(command).await
    }

    /// As [`Quorum::propose`], but only if this node leads: `None` if it does not (any more). For decisions of the
    /// controller, which nobody must carry out who follows a newer one.
    ///
    /// # Errors
    /// No majority answered within the time, or this node has stopped.
    pub async fn propose_as_leader(&self, command: Command) -> Result<Option<Outcome>, ProposeError> {
        self.node.propose_as_leader(command).await
    }

    /// Who leads.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.node.leadership()
    }

    /// This node leads, and nobody else can have been elected yet: a majority has heard from it within its lease.
    #[must_use]
    pub fn leads_surely(&self) -> bool {
        self.node.leads_surely()
    }

    /// This node leads, and votes alone: nobody else can decide anything.
    #[must_use]
    pub fn decides_alone(&self) -> bool {
        self.node.decides_alone()
    }

    /// Waits until somebody else leads than `known`, or in another term. Never returns once this node has stopped.
    /// Cancel-safe.
    pub async fn leadership_changed(&self, known: Leadership) -> Leadership {
        self.node.leadership_changed(known).await
    }

    /// An image that is not older than this call: whatever was answered to anybody before is in it. From any node;
    /// costs a question to the leader where another node leads, and a round of heartbeats where the leader has not
    /// heard from a majority within its lease.
    ///
    /// # Errors
    /// Nobody answered within the time, or this node has stopped.
    pub async fn read(&self) -> Result<Arc<Image>, ReadError> {
        self.node.read().await
    }

    /// Where a member's gRPC services are.
    #[must_use]
    pub fn address_of(&self, member: BrokerId) -> Option<String> {
        let members = self.status().members;
        members
            .into_iter()
            .find(|known| known.id == member)
            .map(|known| known.addr)
    }

    /// What this node knows of the quorum.
    #[must_use]
    pub fn status(&self) -> QuorumStatus {
        self.node.status()
    }

    /// The last entry that this node knows to be committed, and who made it: the term, and the node that led in it.
    #[must_use]
    pub fn committed(&self) -> Option<(u64, (u64, BrokerId))> {
        self.node.committed()
    }

    /// The entries of this node's log from `first` on, committed or not; none where its store cannot be read. For checks from
    /// outside: reads them all, and waits for the disk.
    #[must_use]
    pub fn log_entries(&self, first: u64) -> Vec<LogEntry> {
        self.node.log_entries(first)
    }

    /// Why this node takes no part in decisions, where that is for its disk.
    #[must_use]
    pub fn trouble(&self) -> Option<StoreTrouble> {
        self.node.trouble()
    }

    /// What the leader knows of the quorum, how far each member is included. From any node.
    ///
    /// # Errors
    /// Nobody answered within the time, or this node has stopped.
    pub async fn status_of_leader(&self) -> Result<QuorumStatus, ReadError> {
        self.node.status_of_leader().await
    }

    /// The identity of this node's data directory. A node that lost its disk comes back with another one.
    #[must_use]
    pub fn directory(&self) -> Uuid {
        self.node.directory()
    }

    /// Lets a learner vote. From any node; on return the new voters decide.
    ///
    /// # Errors
    /// The step is wrong, and the reason says why; nobody decided within the time; this node has stopped.
    pub async fn add_voter(&self, id: BrokerId) -> Result<(), MembershipError> {
        self.node.add_voter(id).await
    }

    /// Makes a voter a learner, dead or alive. From any node; on return the voters that are left decide.
    ///
    /// # Errors
    /// The step is wrong, and the reason says why; nobody decided within the time; this node has stopped.
    pub async fn remove_voter(&self, id: BrokerId) -> Result<(), MembershipError> {
        self.node.remove_voter(id).await
    }

    /// Forgets a learner. From any node. One that still runs comes back with its next start.
    ///
    /// # Errors
    /// The step is wrong, and the reason says why; nobody decided within the time; this node has stopped.
    pub async fn remove_learner(&self, id: BrokerId) -> Result<(), MembershipError> {
        self.node.remove_learner(id).await
    }

    /// Hands the leadership, if this node has it, to another voter that is alive. Returns when somebody else leads.
    ///
    /// # Errors
    /// This node has stopped.
    pub async fn transfer_leader(&self, to: BrokerId) -> Result<(), ProposeError> {
        self.node.transfer_leader(to).await
    }

    /// Takes a snapshot now, whatever the log's length.
    ///
    /// # Errors
    /// This node has stopped.
    pub async fn snapshot_now(&self) -> Result<(), ProposeError> {
        self.node.snapshot_now().await
    }

    /// Stops to take part; a leader hands its leadership over first. Everything promised is durable already. The store closes when the last clone is gone.
    pub async fn shutdown(self) {
        self.node.shutdown().await;
    }
}
