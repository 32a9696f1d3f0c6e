//! The quorum's calls to other nodes. Every call has a deadline: a swallowed answer must not hold up a stream for ever.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use hyper_util::rt::TokioIo;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use skerry_env::Env;
use skerry_proto::quorum::quorum_client::QuorumClient;
use skerry_proto::quorum::{self as proto, snapshot_chunk::Part};
use thiserror::Error;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

use super::convert::{self, ConvertError};
use super::types::{Snapshot, TypeConfig, Vote};
use crate::config::Timings;

/// Messages are split well below this; a snapshot travels in chunks.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;
const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// Why a call has no answer.
#[derive(Debug, Error)]
pub(super) enum CallError {
    #[error("no answer from {addr} within {after:?}")]
    Timeout { addr: String, after: Duration },
    #[error("{addr}: {}", status.message())]
    Status { addr: String, status: Box<Status> },
    #[error("{addr} sent nonsense: {source}")]
    Nonsense { addr: String, source: ConvertError },
}

impl From<CallError> for RPCError<TypeConfig> {
    fn from(error: CallError) -> Self {
        // "Unreachable" makes openraft wait before the next try. So it must for a peer that is not there; one that was
        // only slow is tried again at once.
        match &error {
            CallError::Timeout { .. } => Self::Network(NetworkError::new(&error)),
            CallError::Status { .. } | CallError::Nonsense { .. } => {
                Self::Unreachable(Unreachable::new(&error))
            }
        }
    }
}

impl From<CallError> for StreamingError<TypeConfig> {
    fn from(error: CallError) -> Self {
        Self::Unreachable(Unreachable::new(&error))
    }
}

/// Makes a peer for each member.
pub(super) struct Peers {
    pub(super) env: Env,
    pub(super) timings: Timings,
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        // openraft allows an append one heartbeat's time; a slow disk syncs longer than that. A peer that is gone shows
        // in the heartbeats, which have a connection of their own.
        Peer::new(self.env.clone(), target, node.addr.clone()).with_patience(self.timings.election_max)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        Peer::new(self.env.clone(), target, node.addr.clone()).with_patience(self.timings.heartbeat * 2)
    }
}

/// A way to one node. It connects when it is used.
pub(super) struct Peer {
    env: Env,
    target: u64,
    addr: String,
    /// The least time that an append gets.
    patience: Duration,
    client: Option<QuorumClient<Channel>>,
}

impl Peer {
    pub(super) fn new(env: Env, target: u64, addr: String) -> Self {
        Self {
            env,
            target,
            addr,
            patience: Duration::ZERO,
            client: None,
        }
    }

    fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(super) fn addr(&self) -> &str {
        &self.addr
    }

    fn connect(&self) -> QuorumClient<Channel> {
        let (env, addr) = (self.env.clone(), self.addr.clone());
        let connector = tower::service_fn(move |_: Uri| {
            let (env, addr) = (env.clone(), addr.clone());
            async move { env.net.dial(&addr).await.map(TokioIo::new) }
        });
        // The connector knows the address: the URI only names the protocol.
        let channel = Endpoint::from_static("http://quorum.skerry").connect_with_connector_lazy(connector);
        QuorumClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Calls within `deadline`. After a failure the next call makes a new connection: the old one may be one that the
    /// network has forgotten, and would hang until TCP gives up.
    pub(super) async fn call<T, F>(
        &mut self,
        deadline: Duration,
        call: impl FnOnce(QuorumClient<Channel>) -> F + Send,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let client = self.client.take().unwrap_or_else(|| self.connect());
        match self.env.clock.timeout(deadline, call(client.clone())).await {
            Ok(Ok(response)) => {
                self.client = Some(client);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(CallError::Status {
                addr: self.addr.clone(),
                status: Box::new(status),
            }),
            Err(_) => Err(CallError::Timeout {
                addr: self.addr.clone(),
                after: deadline,
            }),
        }
    }

    fn read<T>(&self, converted: Result<T, ConvertError>) -> Result<T, CallError> {
        converted.map_err(|source| CallError::Nonsense {
            addr: self.addr.clone(),
            source,
        })
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        deadline: Duration,
    ) -> Result<Vote, CallError> {
        let header = proto::SnapshotHeader {
            to: self.target,
            vote: Some(convert::vote(&vote)),
            meta: Some(convert::snapshot_meta(&snapshot.meta)),
            data_bytes: snapshot.snapshot.len() as u64,
        };
        let parts: Vec<Part> = std::iter::once(Part::Header(header))
            .chain(chunks(snapshot.snapshot).into_iter().map(Part::Data))
            .collect();
        let messages = stream::iter(
            parts
                .into_iter()
                .map(|part| proto::SnapshotChunk { part: Some(part) }),
        );
        let reply = self
            .call(deadline, |mut client| async move {
                client.install_snapshot(messages).await
            })
            .await?;
        let vote = reply
            .vote
            .ok_or(ConvertError::Missing("a vote"))
            .and_then(convert::read_vote);
        self.read(vote)
    }
}

fn chunks(mut data: Bytes) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    while !data.is_empty() {
        chunks.push(data.split_to(data.len().min(SNAPSHOT_CHUNK_BYTES)));
    }
    chunks
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Bytes;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::append_request(self.target, &rpc);
        let reply = self
            .call(option.soft_ttl().max(self.patience), |mut client| async move {
                client.append_entries(request).await
            })
            .await?;
        Ok(self.read(convert::read_append_reply(reply))?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::vote_request(self.target, &rpc);
        let reply = self
            .call(option.soft_ttl(), |mut client| async move {
                client.request_vote(request).await
            })
            .await?;
        Ok(self.read(convert::read_vote_reply(reply))?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::vote_request(self.target, &rpc);
        let reply = self
            .call(option.soft_ttl(), |mut client| async move {
                client.pre_vote(request).await
            })
            .await?;
        Ok(self.read(convert::read_vote_reply(reply))?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.send_snapshot(vote, snapshot, option.soft_ttl()) => Ok(SnapshotResponse::new(sent?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let request = convert::transfer_request(self.target, &req);
        let reply = self
            .call(option.soft_ttl(), |mut client| async move {
                client.transfer_leader(request).await
            })
            .await?;
        Ok(self.read(convert::read_transfer_reply(reply))?)
    }
}
