//! A member of a classic consumer group.

mod assign;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use skerry_types::{Instant, Offset, TopicPartition};

use crate::client::{Client, text};
use crate::connection::Connection;
use crate::error::{ClientError, check};
use crate::fetch::{FetchError, FetchOptions, Fetched, Fetcher, OffsetSpec};
use crate::offsets::{Committed, Membership, version_of};

pub use assign::{Assignment, decode_assignment, decode_subscription, range};

/// How a member behaves.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Out of the group after so long without a heartbeat.
    pub session_timeout: Duration,
    /// How long the others wait for it in a rebalance.
    pub rebalance_timeout: Duration,
    /// Between heartbeats.
    pub heartbeat_interval: Duration,
    /// Between commits of what [`GroupConsumer::next`] has returned; `None`: only [`GroupConsumer::commit`] does.
    pub auto_commit_interval: Option<Duration>,
    /// Where to begin in a partition without a committed offset.
    pub reset: OffsetSpec,
    /// A name that stays over restarts makes it a static member.
    pub instance_id: Option<String>,
    /// How it reads.
    pub fetch: FetchOptions,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(300),
            heartbeat_interval: Duration::from_secs(3),
            auto_commit_interval: Some(Duration::from_secs(5)),
            reset: OffsetSpec::Latest,
            instance_id: None,
            fetch: FetchOptions::default(),
        }
    }
}

/// What happens to a member.
#[derive(Clone, Debug)]
pub enum GroupEvent {
    /// It has these partitions now, each from the position beside it.
    Assigned(BTreeMap<TopicPartition, Offset>),
    /// Records.
    Records(Fetched),
}

/// A member of a group: joins, reads what it is assigned, commits, joins again when the group changes.
pub struct GroupConsumer {
    client: Client,
    group: String,
    topics: Vec<Arc<str>>,
    options: GroupOptions,
    fetcher: Fetcher,
    member: Membership,
    coordinator: Option<Connection>,
    joined: bool,
    next_heartbeat: Instant,
    next_commit: Instant,
    committed: BTreeMap<TopicPartition, Offset>,
    failures: u32,
}

impl GroupConsumer {
    /// A member that will join `group` to read `topics`.
    #[must_use]
    pub fn new(client: &Client, group: &str, topics: &[&str], options: GroupOptions) -> Self {
        Self {
            client: client.clone(),
            group: group.to_owned(),
            topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
            fetcher: Fetcher::new(client, options.fetch.clone()),
            member: Membership {
                instance_id: options.instance_id.clone(),
                ..Membership::outside()
            },
            options,
            coordinator: None,
            joined: false,
            next_heartbeat: Instant::ZERO,
            next_commit: Instant::ZERO,
            committed: BTreeMap::new(),
            failures: 0,
        }
    }

    /// Its id and generation.
    #[must_use]
    pub fn member(&self) -> &Membership {
        &self.member
    }

    /// What it has, and where it stands there.
    #[must_use]
    pub fn positions(&self) -> &BTreeMap<TopicPartition, Offset> {
        self.fetcher.positions()
    }

    /// Goes on reading `partition` at `offset`, which is then also what the next commit says.
    pub fn seek(&mut self, partition: TopicPartition, offset: Offset) {
        if self.fetcher.positions().contains_key(&partition) {
            self.fetcher.seek(partition, offset);
        }
    }

    /// Waits for what happens next. A call says that everything returned before is dealt with, and may be committed.
    ///
    /// # Errors
    /// [`ClientError`] that does not pass.
    pub async fn next(&mut self) -> Result<GroupEvent, ClientError> {
        loop {
            let step = if self.joined {
                self.read().await
            } else {
                self.join().await.map(Some)
            };
            match step {
                Ok(Some(event)) => {
                    self.failures = 0;
                    return Ok(event);
                }
                Ok(None) => {}
                Err(error) => self.mend(error).await?,
            }
        }
    }

    /// Reads until something is due. `None`: a duty was done.
    async fn read(&mut self) -> Result<Option<GroupEvent>, ClientError> {
        let clock = self.client.env().clock.clone();
        let now = clock.now();
        if now >= self.next_heartbeat {
            self.heartbeat().await?;
            self.next_heartbeat = clock.now() + self.options.heartbeat_interval;
        }
        if let Some(interval) = self.options.auto_commit_interval
            && now >= self.next_commit
        {
            self.commit().await?;
            self.next_commit = clock.now() + interval;
        }
        let fetched = tokio::select! {
            biased;
            fetched = self.fetcher.next() => fetched,
            () = clock.sleep_until(self.next_heartbeat) => return Ok(None),
        };
        match fetched {
            Ok(fetched) => Ok(Some(GroupEvent::Records(fetched))),
            Err(FetchError {
                partition, source, ..
            }) if source.code() == Some(ResponseError::OffsetOutOfRange) => {
                // What was to be read is deleted, or was never there: begin where a new group would.
                let offset = self.start_of(&partition).await?;
                self.fetcher.seek(partition, offset);
                Ok(None)
            }
            Err(error) => Err(error.source),
        }
    }

    /// Whatever joining again may mend is mended.
    async fn mend(&mut self, error: ClientError) -> Result<(), ClientError> {
        match error.code() {
            Some(ResponseError::RebalanceInProgress) => {
                // The others wait: commit what is dealt with, while this generation still may.
                if self.options.auto_commit_interval.is_some() {
                    let _ = self.commit().await;
                }
                self.joined = false;
                return Ok(());
            }
            Some(ResponseError::IllegalGeneration) => self.joined = false,
            Some(ResponseError::UnknownMemberId) => {
                self.joined = false;
                self.member.member_id.clear();
            }
            Some(code) if !code.is_retriable() => return Err(error),
            None if !error.is_retriable() => return Err(error),
            _ => self.coordinator = None,
        }
        self.failures += 1;
        tracing::debug!(group = self.group, %error, "group: joining again");
        let pause = self.client.backoff(self.failures);
        self.client.env().clock.sleep(pause).await;
        Ok(())
    }

    async fn connection(&mut self) -> Result<Connection, ClientError> {
        if let Some(known) = &self.coordinator
            && known.closed().is_none()
        {
            return Ok(known.clone());
        }
        let found = self.client.coordinator(&self.group).await?;
        self.coordinator = Some(found.clone());
        Ok(found)
    }

    async fn join(&mut self) -> Result<GroupEvent, ClientError> {
        let connection = self.connection().await?;
        let joined = self.join_group(&connection).await?;
        self.member.member_id = joined.member_id.to_string();
        self.member.generation = joined.generation_id;
        let assignments = if joined.leader == joined.member_id && !joined.skip_assignment {
            self.assign(&joined).await?
        } else {
            Vec::new()
        };
        let assigned = self.sync_group(&connection, &joined, assignments).await?;
        let committed = self.client.committed(&self.group, Some(&assigned)).await?;
        for partition in self.fetcher.positions().clone().keys() {
            self.fetcher.remove(partition);
        }
        self.committed.clear();
        for partition in assigned {
            let offset = match committed.get(&partition) {
                Some(committed) => {
                    self.committed.insert(partition.clone(), committed.offset);
                    committed.offset
                }
                // Not committed yet: the first commit says where it began, even where nothing was read.
                None => self.start_of(&partition).await?,
            };
            self.fetcher.seek(partition, offset);
        }
        self.joined = true;
        let now = self.client.env().clock.now();
        self.next_heartbeat = now + self.options.heartbeat_interval;
        self.next_commit = now + self.options.auto_commit_interval.unwrap_or_default();
        Ok(GroupEvent::Assigned(self.fetcher.positions().clone()))
    }

    async fn start_of(&self, partition: &TopicPartition) -> Result<Offset, ClientError> {
        let found = self
            .client
            .retry(|| {
                self.client
                    .list_offset(partition, self.options.reset, self.options.fetch.committed_only)
            })
            .await?;
        Ok(found.offset.unwrap_or(Offset::ZERO))
    }

    /// KIP-394: a broker may name the member first and have it ask again under that name.
    async fn join_group(&mut self, connection: &Connection) -> Result<JoinGroupResponse, ClientError> {
        let version = version_of::<JoinGroupRequest>(connection, "JoinGroup", i16::MAX)?;
        loop {
            let protocol = JoinGroupRequestProtocol::default()
                .with_name(StrBytes::from_static_str("range"))
                .with_metadata(assign::encode_subscription(&self.topics));
            let mut request = JoinGroupRequest::default()
                .with_group_id(text(&self.group).into())
                .with_session_timeout_ms(millis(self.options.session_timeout))
                .with_member_id(text(&self.member.member_id))
                .with_protocol_type(StrBytes::from_static_str("consumer"))
                .with_protocols(vec![protocol]);
            if version >= 1 {
                request.rebalance_timeout_ms = millis(self.options.rebalance_timeout);
            }
            if version >= 5 {
                request.group_instance_id = self.options.instance_id.as_deref().map(text);
            }
            // Answered when every member has joined, or the rebalance timeout is over.
            let timeout = self.options.rebalance_timeout + self.client.options().request_timeout;
            let called = connection.call_version(&request, version, timeout).await;
            let response: JoinGroupResponse = called.map_err(|source| ClientError::Call {
                api: "JoinGroup",
                addr: connection.addr().to_owned(),
                source,
            })?;
            if ResponseError::try_from_code(response.error_code) == Some(ResponseError::MemberIdRequired) {
                self.member.member_id = response.member_id.to_string();
                continue;
            }
            check(response.error_code, None, || {
                format!("joining group {}", self.group)
            })?;
            return Ok(response);
        }
    }

    /// As the group's leader: who gets what.
    async fn assign(
        &self,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<SyncGroupRequestAssignment>, ClientError> {
        let mut members: BTreeMap<String, Vec<Arc<str>>> = BTreeMap::new();
        for member in &joined.members {
            let topics = decode_subscription(member.metadata.clone()).unwrap_or_default();
            members.insert(member.member_id.to_string(), topics);
        }
        let mut counts: BTreeMap<Arc<str>, i32> = BTreeMap::new();
        for topic in members.values().flatten() {
            if counts.contains_key(topic) {
                continue;
            }
            let found = self.client.retry(|| self.client.topic(topic, false)).await;
            let count = match found {
                Ok(metadata) => i32::try_from(metadata.partitions.len()).unwrap_or(i32::MAX),
                // A topic that does not exist has nothing to assign.
                Err(error) if error.code() == Some(ResponseError::UnknownTopicOrPartition) => 0,
                Err(error) => return Err(error),
            };
            counts.insert(topic.clone(), count);
        }
        let assignments = range(&members, &counts).into_iter().map(|(member, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(&member))
                .with_assignment(assign::encode_assignment(&assignment))
        });
        Ok(assignments.collect())
    }

    async fn sync_group(
        &self,
        connection: &Connection,
        joined: &JoinGroupResponse,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Vec<TopicPartition>, ClientError> {
        let version = version_of::<SyncGroupRequest>(connection, "SyncGroup", i16::MAX)?;
        let mut request = SyncGroupRequest::default()
            .with_group_id(text(&self.group).into())
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_assignments(assignments);
        if version >= 3 {
            request.group_instance_id = self.options.instance_id.as_deref().map(text);
        }
        if version >= 5 {
            request.protocol_type = Some(StrBytes::from_static_str("consumer"));
            request.protocol_name = Some(StrBytes::from_static_str("range"));
        }
        let timeout = self.options.rebalance_timeout + self.client.options().request_timeout;
        let called = connection.call_version(&request, version, timeout).await;
        let response: SyncGroupResponse = called.map_err(|source| ClientError::Call {
            api: "SyncGroup",
            addr: connection.addr().to_owned(),
            source,
        })?;
        check(response.error_code, None, || {
            format!("syncing with group {}", self.group)
        })?;
        let assignment = decode_assignment(response.assignment).unwrap_or_default();
        let partitions = assignment.iter().flat_map(|(topic, indexes)| {
            indexes
                .iter()
                .map(|index| TopicPartition::new(topic.clone(), *index))
        });
        Ok(partitions.collect())
    }

    async fn heartbeat(&mut self) -> Result<(), ClientError> {
        let connection = self.connection().await?;
        let version = version_of::<HeartbeatRequest>(&connection, "Heartbeat", i16::MAX)?;
        let mut request = HeartbeatRequest::default()
            .with_group_id(text(&self.group).into())
            .with_generation_id(self.member.generation)
            .with_member_id(text(&self.member.member_id));
        if version >= 3 {
            request.group_instance_id = self.options.instance_id.as_deref().map(text);
        }
        let response: HeartbeatResponse = self
            .client
            .call_at(&connection, "Heartbeat", &request, version)
            .await?;
        check(response.error_code, None, || {
            format!("heartbeat to group {}", self.group)
        })
    }

    /// Commits the position of each partition that has moved since its last commit.
    ///
    /// # Errors
    /// [`ClientError`]; the first refusal of a partition.
    pub async fn commit(&mut self) -> Result<(), ClientError> {
        let moved: BTreeMap<TopicPartition, Committed> = self
            .fetcher
            .positions()
            .iter()
            .filter(|(partition, position)| self.committed.get(*partition) != Some(*position))
            .map(|(partition, position)| (partition.clone(), Committed::at(*position)))
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        let connection = self.connection().await?;
        let results = self
            .client
            .commit_to(&connection, &self.group, &self.member, &moved)
            .await?;
        for (partition, code) in results {
            check(code, None, || {
                format!("committing {partition} for group {}", self.group)
            })?;
            if let Some(committed) = moved.get(&partition) {
                self.committed.insert(partition, committed.offset);
            }
        }
        Ok(())
    }

    /// Commits what is dealt with, where that is automatic, and leaves the group. A static member stays in it.
    ///
    /// # Errors
    /// [`ClientError`]: then the group finds out by itself after the session timeout.
    pub async fn leave(mut self) -> Result<(), ClientError> {
        if !self.joined {
            return Ok(());
        }
        if self.options.auto_commit_interval.is_some() {
            self.commit().await?;
        }
        if self.options.instance_id.is_some() {
            return Ok(());
        }
        let connection = self.connection().await?;
        let version = version_of::<LeaveGroupRequest>(&connection, "LeaveGroup", i16::MAX)?;
        let request = LeaveGroupRequest::default().with_group_id(text(&self.group).into());
        let member_id = text(&self.member.member_id);
        let request = match version {
            3.. => request.with_members(vec![MemberIdentity::default().with_member_id(member_id)]),
            _ => request.with_member_id(member_id),
        };
        let response: LeaveGroupResponse = self
            .client
            .call_at(&connection, "LeaveGroup", &request, version)
            .await?;
        check(response.error_code, None, || {
            format!("leaving group {}", self.group)
        })
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
