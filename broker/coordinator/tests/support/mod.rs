//! A group shard driven by lines of text, and what it does printed as lines of text.
//!
//! ```text
//! join G [MEMBER] [as=CLIENT] [v=N] [session=10s] [rebalance=60s] [instance=I] [type=consumer] [protocols=p:T+U,q] [reason=R]
//! sync G MEMBER GENERATION [MEMBER=ASSIGNMENT ...] [instance=I] [type=T] [protocol=P]
//! heartbeat G MEMBER GENERATION [instance=I]          leave G MEMBER|@INSTANCE|MEMBER@INSTANCE ...
//! commit G [by=MEMBER] [gen=N] [instance=I] [v=N] [retention=1s] TOPIC-P=OFFSET[/EPOCH][:METADATA] ...
//! fetch G *|TOPIC-P ... [stable]                      offset-delete G TOPIC-P ...
//! describe G ... [v=N]     list [states=A,B] [types=T]     delete G ...     topics-deleted T ...
//! tick 3s (fires every deadline on the way)           wall 8d (the wall clock jumps)
//! hold | ok | fail WHY | release (appends wait; the oldest succeeds or fails; all succeed and none waits any more)
//! unload | load | reload         set max_size=2
//! ```
//! `''` is the empty name. A generated member id `CLIENT-00000000-0000-0000-0000-00000000000N` is written `CLIENT-N`.
//! A protocol is `NAME` or `NAME:TOPIC+TOPIC` (then its metadata is a consumer's subscription).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use skerry_coordinator::records::{GroupMetadataValue, OffsetCommitValue, RecordKey};
use skerry_coordinator::*;
use skerry_types::{Instant, LeaderEpoch, Offset, PartitionIndex, Uuid, WallMs};

pub struct World {
    pub shard: GroupShard,
    pub settings: GroupSettings,
    pub instant_ms: u64,
    pub wall_ms: i64,
    pub log: Vec<(Bytes, Option<Bytes>)>,
    next_token: u64,
    next_uuid: u8,
    hold: bool,
    waiting: VecDeque<(AppendId, Vec<GroupRecord>)>,
    show_events: bool,
    /// Every answer, in order.
    pub replies: Vec<(ReplyToken, Response)>,
    out: String,
}

#[allow(dead_code, reason = "the property tests run no transcript")]
pub fn check(script: &str, expected: expect_test::Expect) {
    let mut world = World::new();
    world.run(script);
    expected.assert_eq(&world.out);
}

impl World {
    pub fn new() -> Self {
        let settings = GroupSettings::default();
        let mut world = Self {
            shard: GroupShard::new(settings),
            settings,
            instant_ms: 0,
            wall_ms: 1_000_000,
            log: Vec::new(),
            next_token: 1,
            next_uuid: 1,
            hold: false,
            waiting: VecDeque::new(),
            show_events: false,
            replies: Vec::new(),
            out: String::new(),
        };
        world.shard.start_loading();
        let effects = world.shard.finish_loading(world.now());
        assert!(effects.is_empty(), "{effects:?}");
        world
    }

    #[allow(dead_code, reason = "the property tests run no transcript")]
    pub fn run(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix('#') {
                writeln!(self.out, "#{comment}").unwrap();
                continue;
            }
            writeln!(self.out, "> {line}").unwrap();
            self.line(line);
            self.shard.check();
        }
    }

    pub fn now(&self) -> Now {
        Now {
            instant: Instant::from_millis(self.instant_ms),
            wall: WallMs(self.wall_ms),
        }
    }

    pub fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (command, words) = words.split_first().unwrap();
        match *command {
            "tick" => self.tick(millis(words[0])),
            "wall" => self.wall_ms += i64::try_from(millis(words[0])).unwrap(),
            "hold" => self.hold = true,
            "release" => {
                self.hold = false;
                while self.report(Ok) {}
            }
            "ok" => assert!(self.report(Ok), "no append waits"),
            "fail" => {
                let why = failure(words[0]);
                assert!(self.report(|_| Err(why)), "no append waits");
            }
            "unload" => {
                let effects = self.shard.unload();
                self.carry_out(effects);
            }
            "load" => self.load(),
            "reload" => {
                let effects = self.shard.unload();
                self.carry_out(effects);
                while self.report(Ok) {}
                self.load();
            }
            "start-loading" => self.shard.start_loading(),
            "full" => self.shard.set_full(true),
            "room" => self.shard.set_full(false),
            "events" => self.show_events = true,
            "log" => self.print_log(),
            "set" => self.set(words[0]),
            "topics-deleted" => {
                let topics: BTreeSet<Arc<str>> = words.iter().map(|word| Arc::from(*word)).collect();
                let effects = self.shard.on_topics_deleted(&topics, self.now());
                self.carry_out(effects);
            }
            command => {
                let request = self.request(command, words);
                let _ = self.handle(request);
            }
        }
    }

    pub fn handle(&mut self, request: Request) -> ReplyToken {
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        let effects = self.shard.handle(token, request, self.now());
        self.carry_out(effects);
        token
    }

    fn set(&mut self, setting: &str) {
        let (key, value) = setting.split_once('=').unwrap();
        match key {
            "max_size" => self.settings.max_size = value.parse().unwrap(),
            "initial_delay" => self.settings.initial_rebalance_delay_ms = value.parse().unwrap(),
            "metadata_max" => self.settings.offset_metadata_max_bytes = value.parse().unwrap(),
            unknown => panic!("{unknown}"),
        }
        self.shard.set_settings(self.settings);
    }

    fn load(&mut self) {
        self.shard.start_loading();
        for (offset, (key, value)) in self.log.clone().iter().enumerate() {
            let origin = RecordOrigin {
                offset: Offset(offset as i64),
                transaction: None,
            };
            self.shard.replay(origin, key, value.as_deref()).unwrap();
        }
        let effects = self.shard.finish_loading(self.now());
        self.carry_out(effects);
    }

    fn tick(&mut self, ms: u64) {
        let end = self.instant_ms + ms;
        while let Some(at) = self
            .shard
            .next_deadline()
            .map(Instant::as_millis)
            .filter(|at| *at <= end)
        {
            self.pass(at - self.instant_ms);
            let effects = self.shard.on_tick(self.now());
            if effects
                .iter()
                .any(|effect| self.show_events || !matches!(effect, Effect::Event(_)))
            {
                writeln!(self.out, "  at {:?}", Instant::from_millis(self.instant_ms)).unwrap();
            }
            self.carry_out(effects);
            self.shard.check();
        }
        self.pass(end - self.instant_ms);
    }

    fn pass(&mut self, ms: u64) {
        self.instant_ms += ms;
        self.wall_ms += i64::try_from(ms).unwrap();
    }

    /// Reports the oldest append; false if there is none.
    pub fn report(&mut self, outcome: impl FnOnce(Offset) -> Result<Offset, AppendFailure>) -> bool {
        let Some((id, records)) = self.waiting.pop_front() else {
            return false;
        };
        let outcome = outcome(Offset(self.log.len() as i64));
        if outcome.is_ok() {
            self.log
                .extend(records.into_iter().map(|record| (record.key, record.value)));
        }
        let effects = self.shard.on_appended(id, outcome, self.now());
        self.carry_out(effects);
        true
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { records, then } => {
                    let records_text: Vec<String> = records
                        .iter()
                        .map(|record| describe_record(&record.key, record.value.as_ref()))
                        .collect();
                    self.print(&format!("append {}", records_text.join("; ")));
                    self.waiting.push_back((then, records));
                }
                Effect::Reply(token, response) => {
                    self.replies.push((token, response.clone()));
                    self.print(&format!("#{} {}", token.0, describe(&response)));
                }
                Effect::Event(event) if self.show_events => {
                    let text = format!("({} {:?})", event.group_id, event.kind);
                    self.print(&text);
                }
                Effect::Event(_) => {}
            }
        }
        if !self.hold {
            while self.report(Ok) {}
        }
    }

    fn print(&mut self, text: &str) {
        writeln!(self.out, "  {}", shorten(text)).unwrap();
    }

    fn print_log(&mut self) {
        for (key, value) in self.log.clone() {
            self.print(&describe_record(&key, value.as_ref()));
        }
    }

    fn request(&mut self, command: &str, words: &[&str]) -> Request {
        let mut args = Args::new(words);
        let version = |args: &mut Args| args.option("v").map(|v| v.parse().unwrap());
        match command {
            "join" => Request::Join(self.join(&mut args)),
            "sync" => Request::Sync(SyncRequest {
                group_id: args.name(),
                member_id: args.name(),
                generation_id: args.number(),
                group_instance_id: args.option("instance").map(Arc::from),
                protocol_type: args.option("type").map(Arc::from),
                protocol_name: args.option("protocol").map(Arc::from),
                assignments: args
                    .pairs()
                    .map(|(member, to)| (name(member), Bytes::from(to.to_owned())))
                    .collect(),
            }),
            "heartbeat" => Request::Heartbeat(HeartbeatRequest {
                group_id: args.name(),
                member_id: args.name(),
                generation_id: args.number(),
                group_instance_id: args.option("instance").map(Arc::from),
            }),
            "leave" => Request::Leave(LeaveRequest {
                group_id: args.name(),
                members: args
                    .rest()
                    .map(|word| {
                        let (member, instance) = word.split_once('@').unwrap_or((word, ""));
                        LeaveMember {
                            member_id: name(member),
                            group_instance_id: Some(instance).filter(|id| !id.is_empty()).map(Arc::from),
                            reason: None,
                        }
                    })
                    .collect(),
            }),
            "commit" => Request::Commit(CommitRequest {
                version: version(&mut args).unwrap_or(8),
                group_id: args.name(),
                member_id: args.option("by").map(name).unwrap_or_default(),
                generation_id: args.option("gen").map_or(-1, |text| text.parse().unwrap()),
                group_instance_id: args.option("instance").map(Arc::from),
                retention_time_ms: args.option("retention").map_or(-1, |text| millis(text) as i64),
                topics: commit_topics(args.pairs()),
            }),
            "fetch" => Request::Fetch(FetchRequest {
                group_id: args.name(),
                require_stable: args.flag("stable"),
                topics: if args.flag("*") {
                    None
                } else {
                    Some(topics(args.rest()))
                },
            }),
            "describe" => Request::Describe(DescribeRequest {
                version: version(&mut args).unwrap_or(5),
                groups: args.rest().map(name).collect(),
            }),
            "list" => Request::List(ListRequest {
                states: args.list("states").collect(),
                types: args.list("types").collect(),
            }),
            "delete" => Request::Delete(DeleteRequest {
                groups: args.rest().map(name).collect(),
            }),
            "offset-delete" => Request::OffsetDelete(OffsetDeleteRequest {
                group_id: args.name(),
                topics: topics(args.rest()),
            }),
            unknown => panic!("{unknown}"),
        }
    }

    fn join(&mut self, args: &mut Args) -> JoinRequest {
        let mut new_member_id = [0; 16];
        new_member_id[15] = self.next_uuid;
        self.next_uuid = self.next_uuid.checked_add(1).unwrap();
        let protocols = args.option("protocols").unwrap_or("range:t");
        JoinRequest {
            version: args.option("v").map_or(9, |v| v.parse().unwrap()),
            client_id: Arc::from(args.option("as").unwrap_or("c")),
            client_host: Arc::from("/127.0.0.1"),
            new_member_id: Uuid(new_member_id),
            session_timeout_ms: args.option("session").map_or(10_000, |text| millis(text) as i32),
            rebalance_timeout_ms: args
                .option("rebalance")
                .map_or(60_000, |text| millis(text) as i32),
            group_instance_id: args.option("instance").map(Arc::from),
            protocol_type: Arc::from(args.option("type").unwrap_or("consumer")),
            protocols: protocols
                .split(',')
                .filter(|text| *text != "''")
                .map(protocol)
                .collect(),
            reason: args.option("reason").map(Arc::from),
            group_id: args.name(),
            member_id: args.optional_name(),
        }
    }
}

/// Words of a line: `key=value` options of known keys are taken by name, the others in order.
struct Args<'a> {
    words: VecDeque<&'a str>,
}

impl<'a> Args<'a> {
    fn new(words: &[&'a str]) -> Self {
        Self {
            words: words.iter().copied().collect(),
        }
    }

    fn option(&mut self, key: &str) -> Option<&'a str> {
        let index = self
            .words
            .iter()
            .position(|word| word.split_once('=').is_some_and(|(k, _)| k == key))?;
        self.words
            .remove(index)
            .map(|word| word.split_once('=').unwrap().1)
    }

    fn flag(&mut self, word: &str) -> bool {
        let index = self.words.iter().position(|candidate| *candidate == word);
        index.is_some_and(|index| self.words.remove(index).is_some())
    }

    fn list(&mut self, key: &str) -> impl Iterator<Item = Arc<str>> + use<'a> {
        self.option(key)
            .unwrap_or("")
            .split(',')
            .filter(|word| !word.is_empty())
            .map(Arc::from)
    }

    fn name(&mut self) -> Arc<str> {
        let index = self
            .words
            .iter()
            .position(|word| !word.contains('='))
            .expect("a name");
        name(self.words.remove(index).unwrap())
    }

    fn optional_name(&mut self) -> Arc<str> {
        self.words.pop_front().map(name).unwrap_or_default()
    }

    fn number(&mut self) -> i32 {
        self.name().parse().unwrap()
    }

    fn pairs(&mut self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        std::mem::take(&mut self.words)
            .into_iter()
            .map(|word| word.split_once('=').unwrap())
    }

    fn rest(&mut self) -> impl Iterator<Item = &'a str> + use<'a> {
        std::mem::take(&mut self.words).into_iter()
    }
}

/// `c-1` names the first generated member id of client c.
pub fn name(word: &str) -> Arc<str> {
    if word == "''" {
        return Arc::default();
    }
    match word.rsplit_once('-') {
        Some((client, number)) if number.parse::<u8>().is_ok() => Arc::from(format!(
            "{client}-{ZERO_UUID}{:02x}",
            number.parse::<u8>().unwrap()
        )),
        _ => Arc::from(word),
    }
}

const ZERO_UUID: &str = "00000000-0000-0000-0000-0000000000";

fn shorten(text: &str) -> String {
    let mut short = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(ZERO_UUID) {
        let (before, after) = rest.split_at(at);
        let (number, after) = after[ZERO_UUID.len()..].split_at(2);
        write!(short, "{before}{}", u8::from_str_radix(number, 16).unwrap()).unwrap();
        rest = after;
    }
    short + rest
}

fn millis(text: &str) -> u64 {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let number: u64 = text[..at].parse().unwrap();
    match &text[at..] {
        "ms" => number,
        "s" => number * 1_000,
        "m" => number * 60_000,
        "h" => number * 3_600_000,
        "d" => number * 86_400_000,
        unit => panic!("{unit}"),
    }
}

fn failure(word: &str) -> AppendFailure {
    match word {
        "not-leader" => AppendFailure::NotLeader,
        "storage" => AppendFailure::Storage,
        "not-enough-replicas" => AppendFailure::NotEnoughReplicas,
        "timed-out" => AppendFailure::TimedOut,
        "too-large" => AppendFailure::TooLarge,
        unknown => panic!("{unknown}"),
    }
}

pub fn protocol(text: &str) -> Protocol {
    let (name, metadata) = match text.split_once(':') {
        None => (text, Bytes::new()),
        Some((name, topics)) => (
            name,
            subscription(topics.split('+').filter(|topic| !topic.is_empty())),
        ),
    };
    Protocol {
        name: Arc::from(name),
        metadata,
    }
}

fn subscription<'a>(topics: impl Iterator<Item = &'a str>) -> Bytes {
    let topics: Vec<&str> = topics.collect();
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(topics.len() as i32);
    for topic in topics {
        bytes.put_i16(topic.len() as i16);
        bytes.put_slice(topic.as_bytes());
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

fn topic_partition(word: &str) -> (Arc<str>, PartitionIndex) {
    let (topic, partition) = word.rsplit_once('-').unwrap();
    (Arc::from(topic), PartitionIndex(partition.parse().unwrap()))
}

fn topics<'a>(words: impl Iterator<Item = &'a str>) -> Vec<(Arc<str>, Vec<PartitionIndex>)> {
    let mut topics: BTreeMap<Arc<str>, Vec<PartitionIndex>> = BTreeMap::new();
    for (topic, partition) in words.map(topic_partition) {
        topics.entry(topic).or_default().push(partition);
    }
    topics.into_iter().collect()
}

fn commit_topics<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<CommitTopic> {
    let mut topics: BTreeMap<Arc<str>, Vec<CommitPartition>> = BTreeMap::new();
    for (target, what) in pairs {
        let (topic, partition) = topic_partition(target);
        let (position, metadata) = what.split_once(':').map_or((what, None), |(a, b)| (a, Some(b)));
        let (offset, epoch) = position.split_once('/').unwrap_or((position, "-1"));
        topics.entry(topic).or_default().push(CommitPartition {
            partition,
            offset: Offset(offset.parse().unwrap()),
            leader_epoch: LeaderEpoch(epoch.parse().unwrap()),
            metadata: metadata.map(Arc::from),
        });
    }
    topics
        .into_iter()
        .map(|(name, partitions)| CommitTopic {
            name,
            id: None,
            partitions,
        })
        .collect()
}

fn outcome(error: Option<GroupError>) -> String {
    error.map_or_else(|| "ok".to_owned(), |error| format!("{error:?}"))
}

fn text_of(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn describe(response: &Response) -> String {
    match response {
        Response::Join(join) => describe_join(join),
        Response::Sync(sync) => match sync.error {
            Some(error) => format!("sync {error:?}"),
            None => format!(
                "sync ok assignment={:?} type={} protocol={}",
                text_of(&sync.assignment),
                sync.protocol_type.as_deref().unwrap_or("null"),
                sync.protocol_name.as_deref().unwrap_or("null")
            ),
        },
        Response::Heartbeat(heartbeat) => format!("heartbeat {}", outcome(heartbeat.error)),
        Response::Leave(leave) => {
            let members = leave.members.iter().map(|member| {
                let instance = member
                    .group_instance_id
                    .as_deref()
                    .map(|id| format!("@{id}"))
                    .unwrap_or_default();
                format!(" {}{instance}={}", member.member_id, outcome(member.error))
            });
            format!("leave {}{}", outcome(leave.error), members.collect::<String>())
        }
        Response::Commit(commit) => format!("commit{}", topic_errors(&commit.topics)),
        Response::Fetch(fetch) => {
            let mut text = format!("fetch {}", outcome(fetch.error));
            for (topic, partition) in fetch
                .topics
                .iter()
                .flat_map(|t| t.partitions.iter().map(move |p| (t, p)))
            {
                let FetchPartition {
                    partition,
                    offset,
                    leader_epoch,
                    metadata,
                    error,
                } = partition;
                let error = error.map(|error| format!("!{error:?}")).unwrap_or_default();
                write!(
                    text,
                    " {}-{partition}={offset}/{leader_epoch}:{metadata}{error}",
                    topic.name
                )
                .unwrap();
            }
            text
        }
        Response::Describe(describe) => {
            let groups = describe.groups.iter().map(describe_group);
            format!("describe {}", groups.collect::<Vec<_>>().join("; "))
        }
        Response::List(list) => {
            let groups = list.groups.iter().map(|group| {
                let kind = if group.protocol_type.is_empty() {
                    "''"
                } else {
                    &group.protocol_type
                };
                format!(
                    " {}({kind} {} {})",
                    group.group_id,
                    group.state.name(),
                    group.group_type
                )
            });
            format!("list {}{}", outcome(list.error), groups.collect::<String>())
        }
        Response::Delete(delete) => {
            let groups = delete
                .groups
                .iter()
                .map(|(id, error)| format!(" {id}={}", outcome(*error)));
            format!("delete{}", groups.collect::<String>())
        }
        Response::OffsetDelete(delete) => {
            format!(
                "offset-delete {}{}",
                outcome(delete.error),
                topic_errors(&delete.topics)
            )
        }
    }
}

fn describe_join(join: &JoinResponse) -> String {
    if let Some(error) = join.error {
        return format!("join {error:?} member={:?}", join.member_id);
    }
    let members = join.members.iter().map(|member| match &member.group_instance_id {
        Some(instance) => format!("{}@{instance}", member.member_id),
        None => member.member_id.to_string(),
    });
    let members: Vec<String> = members.collect();
    let skip = if join.skip_assignment {
        " skip-assignment"
    } else {
        ""
    };
    format!(
        "join ok gen={} member={} leader={} protocol={} members=[{}]{skip}",
        join.generation_id,
        join.member_id,
        join.leader,
        join.protocol_name.as_deref().unwrap_or("null"),
        members.join(" ")
    )
}

fn describe_group(group: &DescribedGroup) -> String {
    let members = group.members.iter().map(|member| {
        format!(
            "{}={:?}/{}B",
            member.member_id,
            text_of(&member.assignment),
            member.metadata.len()
        )
    });
    format!(
        "{} {} {} type={:?} protocol={:?} members=[{}]{}",
        group.group_id,
        outcome(group.error),
        group.state.map_or("''", GroupState::name),
        group.protocol_type,
        group.protocol_data,
        members.collect::<Vec<_>>().join(" "),
        group
            .error_message
            .as_deref()
            .map(|text| format!(" {text:?}"))
            .unwrap_or_default()
    )
}

fn topic_errors(topics: &[TopicErrors]) -> String {
    let all = topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)));
    all.map(|(topic, (partition, error))| format!(" {}-{partition}={}", topic.name, outcome(*error)))
        .collect()
}

fn describe_record(key: &Bytes, value: Option<&Bytes>) -> String {
    match RecordKey::decode(key).unwrap() {
        RecordKey::OffsetCommit { group, partition } => {
            match value.map(|value| OffsetCommitValue::decode(value)) {
                None => format!("{group}/{partition} gone"),
                Some(value) => {
                    let value = value.unwrap();
                    let expire = value
                        .expire_timestamp
                        .map(|at| format!(" until {at}"))
                        .unwrap_or_default();
                    let OffsetCommitValue {
                        offset,
                        leader_epoch,
                        metadata,
                        commit_timestamp,
                        ..
                    } = value;
                    format!(
                        "{group}/{partition}={offset}/{leader_epoch}:{metadata} at {commit_timestamp}{expire}"
                    )
                }
            }
        }
        RecordKey::GroupMetadata { group } => match value.map(|value| GroupMetadataValue::decode(value)) {
            None => format!("{group} gone"),
            Some(value) => {
                let value = value.unwrap();
                let members = value.members.iter().map(|member| {
                    let instance = member
                        .group_instance_id
                        .as_deref()
                        .map(|id| format!("@{id}"))
                        .unwrap_or_default();
                    format!("{}{instance}={:?}", member.member_id, text_of(&member.assignment))
                });
                format!(
                    "{group} gen={} protocol={} leader={} members=[{}]",
                    value.generation,
                    value.protocol.as_deref().unwrap_or("null"),
                    value.leader.as_deref().unwrap_or("null"),
                    members.collect::<Vec<_>>().join(" ")
                )
            }
        },
        RecordKey::Other(kind) => format!("record type {kind}"),
    }
}
