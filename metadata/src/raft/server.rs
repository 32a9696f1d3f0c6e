//! The quorum's gRPC service.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use openraft::raft::AppendEntriesResponse;
use skerry_env::{Clock, Conn, Listener};
use skerry_metadata_state::Command;
use skerry_proto::quorum::quorum_server::{Quorum, QuorumServer};
use skerry_proto::quorum::{self as proto, propose_reply, read_index_reply, snapshot_chunk::Part};
use skerry_types::{is_planted, reached};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::codegen::http;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::Node;
use super::ask::{Answer, Ask as _, AskError, Propose, ReadIndex, elsewhere};
use super::convert::{self, ConvertError};
use super::members::{self, Change};
use super::network::MESSAGE_BYTES_MAX;
use super::snapshot::Stored;
use super::types::Snapshot;

/// The largest snapshot that is accepted: some millions of partitions.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;
/// The wait after the system had no descriptor or buffer for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Service {
    node: Node,
}

impl Service {
    pub(super) fn new(node: Node) -> QuorumServer<Self> {
        QuorumServer::new(Self { node })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Another node at an address that changed hands must not vote for us, and neither must this one if its disk was
    /// lost: it would vote twice in a term, and confirm entries that it has no more.
    fn check_target(&self, to: Option<proto::Addressee>) -> Result<(), Status> {
        let to = to.ok_or(ConvertError::Missing("an addressee"))?;
        let id = self.node.raft_id();
        if to.id != id {
            return Err(Status::failed_precondition(format!(
                "this is node {id}, not {}",
                to.id
            )));
        }
        let directory = convert::read_uuid(&to.directory)?;
        let is_ours = directory == self.node.directory() || is_planted("wiped-voter-keeps-its-vote");
        if !directory.is_zero() && !is_ours {
            reached("asked-for-a-lost-disk");
            return Err(Status::failed_precondition(format!(
                "node {id} has another data directory than the quorum knows"
            )));
        }
        Ok(())
    }
}

fn nonsense(error: ConvertError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// openraft has stopped, or refused in a way that the protocol has no word for.
fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Quorum for Service {
    async fn append_entries(
        &self,
        request: Request<proto::AppendEntriesRequest>,
    ) -> Result<Response<proto::AppendEntriesReply>, Status> {
        let request = request.into_inner();
        self.check_target(request.to.clone())?;
        let rpc = convert::read_append_request(request).map_err(nonsense)?;
        let response = self
            .node
            .scoped(self.node.raft().append_entries(rpc))
            .await
            .map_err(stopped)?;
        if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
            self.node.leader_is_heard();
        }
        Ok(Response::new(convert::append_reply(&response)))
    }

    async fn request_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteReply>, Status> {
        let request = request.into_inner();
        self.check_target(request.to.clone())?;
        let rpc = convert::read_vote_request(request).map_err(nonsense)?;
        let response = self
            .node
            .scoped(self.node.raft().vote(rpc))
            .await
            .map_err(stopped)?;
        Ok(Response::new(convert::vote_reply(&response)))
    }

    async fn pre_vote(
        &self,
        request: Request<proto::VoteRequest>,
    ) -> Result<Response<proto::VoteReply>, Status> {
        let request = request.into_inner();
        self.check_target(request.to.clone())?;
        let rpc = convert::read_vote_request(request).map_err(nonsense)?;
        let response = self
            .node
            .scoped(self.node.raft().pre_vote(rpc))
            .await
            .map_err(stopped)?;
        Ok(Response::new(convert::vote_reply(&response)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<proto::SnapshotChunk>>,
    ) -> Result<Response<proto::SnapshotReply>, Status> {
        let mut parts = request.into_inner();
        let Some(Part::Header(header)) = next_part(&mut parts).await? else {
            return Err(Status::invalid_argument("a snapshot begins with its header"));
        };
        self.check_target(header.to)?;
        let vote = header
            .vote
            .ok_or(ConvertError::Missing("a vote"))
            .and_then(convert::read_vote)
            .map_err(nonsense)?;
        let meta = header
            .meta
            .ok_or(ConvertError::Missing("a snapshot's description"));
        let meta = meta.and_then(convert::read_snapshot_meta).map_err(nonsense)?;
        let snapshot = self.collect(&mut parts, header.data_bytes).await?;
        let install = self
            .node
            .raft()
            .install_full_snapshot(vote, Snapshot { meta, snapshot });
        let response = self.node.scoped(install).await.map_err(stopped)?;
        Ok(Response::new(proto::SnapshotReply {
            vote: Some(convert::vote(&response.vote)),
        }))
    }

    async fn transfer_leader(
        &self,
        request: Request<proto::TransferLeaderRequest>,
    ) -> Result<Response<proto::TransferLeaderReply>, Status> {
        let request = request.into_inner();
        self.check_target(request.to.clone())?;
        let rpc = convert::read_transfer_request(request).map_err(nonsense)?;
        let response = self
            .node
            .scoped(self.node.raft().handle_transfer_leader(rpc))
            .await
            .map_err(stopped)?;
        Ok(Response::new(convert::transfer_reply(&response)))
    }

    async fn propose(
        &self,
        request: Request<proto::ProposeRequest>,
    ) -> Result<Response<proto::ProposeReply>, Status> {
        let request = request.into_inner();
        let command =
            Command::decode(&request.command).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = self
            .node
            .answer(request.asker, &Propose(Arc::new(command)))
            .await?;
        let result = match answer {
            Answer::Done(applied) => propose_reply::Result::Applied(proto::Applied {
                index: applied.index,
                outcome: Bytes::from(applied.outcome.encode()),
            }),
            Answer::NotLeader { leader } => propose_reply::Result::NotLeader(elsewhere(leader)),
        };
        Ok(Response::new(proto::ProposeReply { result: Some(result) }))
    }

    async fn describe(
        &self,
        _: Request<proto::DescribeRequest>,
    ) -> Result<Response<proto::DescribeReply>, Status> {
        Ok(Response::new(self.node.describe()))
    }

    async fn read_index(
        &self,
        _: Request<proto::ReadIndexRequest>,
    ) -> Result<Response<proto::ReadIndexReply>, Status> {
        let result = match ReadIndex.here(&self.node).await? {
            Answer::Done(index) => read_index_reply::Result::Index(index),
            Answer::NotLeader { leader } => read_index_reply::Result::NotLeader(elsewhere(leader)),
        };
        Ok(Response::new(proto::ReadIndexReply { result: Some(result) }))
    }

    async fn change_members(
        &self,
        request: Request<proto::ChangeMembersRequest>,
    ) -> Result<Response<proto::ChangeMembersReply>, Status> {
        let request = request.into_inner();
        let asker = request.asker;
        let change = Change::read(request)?;
        let answer = self.node.answer(asker, &change).await?;
        Ok(Response::new(members::reply(answer)))
    }

    type AttendStream = Pin<Box<dyn Stream<Item = Result<proto::AttendReply, Status>> + Send>>;

    async fn attend(&self, _: Request<proto::AttendRequest>) -> Result<Response<Self::AttendStream>, Status> {
        let mut stop = self.node.stopping();
        let stopped = async move {
            let _ = stop.wait_for(|stop| *stop).await;
            None
        };
        let nothing = stream::once(stopped).filter_map(std::future::ready);
        Ok(Response::new(Box::pin(nothing)))
    }
}

async fn next_part(parts: &mut Streaming<proto::SnapshotChunk>) -> Result<Option<Part>, Status> {
    Ok(parts.next().await.transpose()?.and_then(|chunk| chunk.part))
}

impl Service {
    /// Puts the pieces into the store as they come: the sender is held back by the disk, and one piece is in memory.
    async fn collect(
        &self,
        parts: &mut Streaming<proto::SnapshotChunk>,
        data_bytes: u64,
    ) -> Result<Stored, Status> {
        if data_bytes > SNAPSHOT_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "a snapshot of {data_bytes} bytes"
            )));
        }
        let snapshots = self
            .node
            .snapshots()
            .ok_or_else(|| Status::unavailable("this node is stopping"))?;
        let mut writer = snapshots.writer(data_bytes).await.map_err(stopped)?;
        while let Some(part) = next_part(parts).await? {
            let Part::Data(piece) = part else {
                return Err(Status::invalid_argument("a second header"));
            };
            if writer.bytes() + piece.len() as u64 > data_bytes {
                return Err(Status::invalid_argument("a snapshot longer than announced"));
            }
            writer = snapshots
                .blocking(move || writer.push(&piece).map(|()| writer))
                .await
                .map_err(stopped)?;
        }
        if writer.bytes() != data_bytes {
            return Err(Status::invalid_argument(format!(
                "a snapshot of {} bytes, {data_bytes} announced",
                writer.bytes()
            )));
        }
        Ok(writer.finish())
    }
}

impl From<AskError> for Status {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Timeout(after) => Self::deadline_exceeded(format!("no answer within {after:?}")),
            AskError::Stopped(reason) => Self::unavailable(reason),
        }
    }
}

/// The connections of a listener, for tonic. Never ends.
pub(super) fn connections(
    listener: Listener,
    clock: Clock,
) -> impl Stream<Item = io::Result<GrpcConn>> + Send {
    stream::unfold((listener, clock), |(mut listener, clock)| async move {
        let conn = loop {
            match listener.accept().await {
                Ok(conn) => break conn,
                Err(error) => {
                    tracing::warn!(%error, "the cluster port cannot accept a connection");
                    clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        Some((Ok(GrpcConn(conn)), (listener, clock)))
    })
}

/// A connection, as tonic wants it.
pub(super) struct GrpcConn(Conn);

impl Connected for GrpcConn {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for GrpcConn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for GrpcConn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

/// hyper dates its answers by the system's clock, past `Env`: one seed would not be one history. Nobody reads the date of
/// an answer between nodes, and hyper leaves one that is there as it is.
pub(super) fn with_a_fixed_date<B>(mut answer: http::Response<B>) -> http::Response<B> {
    const FIXED: http::HeaderValue = http::HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT");
    answer.headers_mut().insert(http::header::DATE, FIXED);
    answer
}
