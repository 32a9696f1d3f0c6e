//! The quorum's calls to other nodes. Every call has a deadline: a swallowed answer must not hold up a stream for ever.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _, stream};
use hyper_util::rt::TokioIo;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory, RaftNetworkV2};
use parking_lot::Mutex;
use skerry_env::{Env, Tasks};
use skerry_proto::quorum::quorum_client::QuorumClient;
use skerry_proto::quorum::{self as proto, snapshot_chunk::Part};
use skerry_types::{Instant, is_planted};
use thiserror::Error;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Response, Status};

use super::convert::{self, ConvertError};
use super::snapshot::Stored;
use super::types::{Member, Membership, Snapshot, TypeConfig, Vote};
use crate::config::Timings;

/// Messages are split well below this; a snapshot travels in chunks.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// How often a peer that owes an answer is asked whether it is still there. Where it lost its power nobody says that a
/// connection is gone, and who has nothing left to send waits until its deadline: a minute for a snapshot, and as long the
/// peer, back by then, would get nothing.
const PING_EVERY: Duration = Duration::from_secs(1);
/// A connection is given up that does not answer this for so long. Whoever stands still may take up to that.
const PING_TIMEOUT: Duration = Duration::from_secs(4);

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

/// Where each member is, by the newest membership: openraft gives a stream the member as it was when the stream began.
#[derive(Default)]
pub(super) struct AddressBook(Mutex<BTreeMap<u64, Member>>);

impl AddressBook {
    pub(super) fn update(&self, membership: &Membership) {
        *self.0.lock() = membership
            .nodes()
            .map(|(id, member)| (*id, member.clone()))
            .collect();
    }

    fn get(&self, id: u64) -> Option<Member> {
        self.0.lock().get(&id).cloned()
    }
}

/// Makes a peer for each member.
pub(super) struct Peers {
    pub(super) env: Env,
    pub(super) timings: Timings,
    pub(super) book: Arc<AddressBook>,
}

impl Peers {
    fn peer(&self, target: u64, member: &Member, patience: Duration) -> Peer {
        Peer {
            env: self.env.clone(),
            target,
            member: member.clone(),
            book: Arc::clone(&self.book),
            patience,
            hopeless_after: self.timings.lease,
            client: None,
            silent_since: None,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, member: &Member) -> Peer {
        // openraft allows an append one heartbeat's time; a slow disk syncs longer than that. A peer that is gone shows
        // in the heartbeats, which have a connection of their own.
        self.peer(target, member, self.timings.lease * 4)
    }

    async fn new_heartbeat_client(&mut self, target: u64, member: &Member) -> Peer {
        self.peer(target, member, self.timings.heartbeat)
    }
}

pub(super) type Client = QuorumClient<Channel>;

/// A client that connects to `addr` when it is used.
pub(super) fn client_of(env: &Env, addr: &str) -> Client {
    let tasks = env.tasks.clone();
    let (env, addr) = (env.clone(), addr.to_owned());
    let connector = tower::service_fn(move |_: Uri| {
        let (env, addr) = (env.clone(), addr.clone());
        async move { env.net.dial(&addr).await.map(TokioIo::new) }
    });
    // The connector knows the address: the URI only names the protocol.
    let endpoint = Endpoint::from_static("http://quorum.skerry")
        .http2_keep_alive_interval(if is_planted("quorum-without-pings") {
            Duration::from_secs(3_600)
        } else {
            PING_EVERY
        })
        .keep_alive_timeout(PING_TIMEOUT);
    let endpoint = if is_planted("raft-past-the-env") {
        endpoint
    } else {
        endpoint.executor(tasks)
    };
    QuorumClient::new(endpoint.connect_with_connector_lazy(connector))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// A way to one node. It connects when it is used.
pub(super) struct Peer {
    env: Env,
    target: u64,
    /// The node as it was last known.
    member: Member,
    book: Arc<AddressBook>,
    /// The least time that an append gets.
    patience: Duration,
    /// A connection without an answer for so long is given up.
    hopeless_after: Duration,
    client: Option<Client>,
    /// The first call since the last answer.
    silent_since: Option<Instant>,
}

impl Peer {
    /// The connection for the next call: the last one, or a new one where that was silent for too long. The network may
    /// have forgotten a connection, which would hang until TCP gives up; a slow disk is no reason to make a new one.
    fn client(&mut self) -> Client {
        let now = self.env.clock.now();
        let hopeless = self
            .silent_since
            .is_some_and(|since| now > since + self.hopeless_after);
        let moved = self.book.get(self.target).filter(|member| *member != self.member);
        if hopeless || moved.is_some() {
            self.client = None;
            self.silent_since = None;
        }
        if let Some(member) = moved {
            self.member = member;
        }
        self.silent_since.get_or_insert(now);
        self.client
            .get_or_insert_with(|| client_of(&self.env, &self.member.addr))
            .clone()
    }

    fn addressee(&self) -> proto::Addressee {
        proto::Addressee {
            id: self.target,
            directory: convert::uuid(self.member.directory),
        }
    }

    /// Calls within `deadline`. Cancel-safe.
    async fn call<T, F>(
        &mut self,
        deadline: Duration,
        call: impl FnOnce(Client, proto::Addressee) -> F + Send,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let client = self.client();
        let call = call(client, self.addressee());
        match self.env.clock.timeout(deadline, call).await {
            Ok(Ok(response)) => {
                self.silent_since = None;
                Ok(response.into_inner())
            }
            Ok(Err(status)) => {
                self.client = None;
                self.silent_since = None;
                Err(CallError::Status {
                    addr: self.member.addr.clone(),
                    status: Box::new(status),
                })
            }
            Err(_) => Err(CallError::Timeout {
                addr: self.member.addr.clone(),
                after: deadline,
            }),
        }
    }

    fn read<T>(&self, converted: Result<T, ConvertError>) -> Result<T, CallError> {
        converted.map_err(|source| CallError::Nonsense {
            addr: self.member.addr.clone(),
            source,
        })
    }

    async fn send_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        deadline: Duration,
    ) -> Result<Vote, CallError> {
        let data = snapshot.snapshot;
        let header = proto::SnapshotHeader {
            to: Some(self.addressee()),
            vote: Some(convert::vote(&vote)),
            meta: Some(convert::snapshot_meta(&snapshot.meta)),
            data_bytes: data.bytes(),
        };
        let messages = stream::iter([Part::Header(header)])
            .chain(pieces(data, self.env.tasks.clone()))
            .map(|part| proto::SnapshotChunk { part: Some(part) });
        let reply = self
            .call(deadline, |mut client, _| async move {
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

/// The pieces of a snapshot, each read when the one before it is on its way. Ends early where one cannot be read: the
/// receiver counts.
fn pieces(data: Stored, tasks: Tasks) -> impl Stream<Item = Part> + Send {
    stream::unfold(0, move |next| {
        let (data, tasks) = (data.clone(), tasks.clone());
        async move {
            if next == data.pieces() {
                return None;
            }
            match tasks.run_blocking(move || data.piece(next)).await {
                Ok(piece) => Some((Part::Data(piece), next + 1)),
                Err(error) => {
                    tracing::warn!(%error, "the metadata snapshot cannot be sent");
                    None
                }
            }
        }
    })
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = Stored;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let reply = self
            .call(option.soft_ttl().max(self.patience), |mut client, to| {
                let request = convert::append_request(to, &rpc);
                async move { client.append_entries(request).await }
            })
            .await;
        if reply.is_err() && is_planted("unanswered-entry-counts") {
            return Ok(AppendEntriesResponse::Success);
        }
        Ok(self.read(convert::read_append_reply(reply?))?)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let reply = self
            .call(option.soft_ttl(), |mut client, to| {
                let request = convert::vote_request(to, &rpc);
                async move { client.request_vote(request).await }
            })
            .await?;
        Ok(self.read(convert::read_vote_reply(reply))?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let reply = self
            .call(option.soft_ttl(), |mut client, to| {
                let request = convert::vote_request(to, &rpc);
                async move { client.pre_vote(request).await }
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
        let reply = self
            .call(option.soft_ttl(), |mut client, to| {
                let request = convert::transfer_request(to, &req);
                async move { client.transfer_leader(request).await }
            })
            .await?;
        Ok(self.read(convert::read_transfer_reply(reply))?)
    }
}
