use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use parking_lot::Mutex;
use skerry_env::net::{ListenerBackend, NetFuture, NetworkBackend};
use skerry_env::{Conn, Listener, Rng};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

use super::corrupt::{self, Corrupted, Course, Damage};
use super::gate::Gate;
use crate::trace::{Trace, fnv_of};
use crate::world::KAFKA_PORT;

/// A dial through a cut way ends after this time, as Linux ends it (sooner: a simulation is short).
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// What the host says of a port that nobody listens on.
const REFUSED_AFTER: Duration = Duration::from_millis(1);

/// So much may be on its way on a connection and in its reader's buffers: who writes more waits, as Linux lets it wait.
const WINDOW_BYTES: usize = 256 << 10;

/// Reads what passes through the connections that a host accepts.
pub trait Tap: Send + Sync {
    /// A connection was accepted on `port`.
    fn opened(&self, conn: u64, port: u16);
    /// The host read `bytes`.
    fn received(&self, conn: u64, bytes: &[u8]);
    /// The host wrote `bytes`: from here on they may reach the peer.
    fn sent(&self, conn: u64, bytes: &[u8]);
    /// The connection is gone.
    fn closed(&self, conn: u64);
}

/// What goes wrong with a host's connections. A zero: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkFaults {
    /// One of so many writes breaks the connection before a byte of it left.
    pub reset_one_in: u64,
    /// One of so many writes breaks it in the middle of the bytes.
    pub cut_one_in: u64,
    /// One of so many reads and writes moves a few bytes only.
    pub chop_one_in: u64,
}

/// One of so many of the batches that a host sends is damaged on its way.
struct Corruption {
    one_in: u64,
    rng: Rng,
}

/// What a host does with its sockets.
#[derive(Default)]
struct Traffic {
    dials: AtomicU64,
    writes: AtomicU64,
    /// Connections given up, whose other end is told so.
    ends: AtomicU64,
}

struct Ways {
    down: BTreeSet<String>,
    cut: BTreeSet<(String, String)>,
    /// How many were, so far.
    cuts: u64,
    /// The connections that somebody has dialled and not given up, by both ends.
    open: BTreeMap<u64, (SocketAddr, SocketAddr)>,
    /// The connections that somebody has accepted and not given up, by the same two ends.
    accepted: BTreeMap<u64, (SocketAddr, SocketAddr)>,
    /// What was written on a connection, from its first end to its second, and not read yet.
    unread: BTreeMap<(SocketAddr, SocketAddr), Unread>,
}

/// See [`Ways::unread`].
#[derive(Default)]
struct Unread {
    bytes: usize,
    /// Who waits until there is less.
    writer: Option<Waker>,
}

/// A host's sockets as the world sees them. Cheap to clone.
#[derive(Clone)]
pub struct NetControl {
    host: Arc<str>,
    ways: Arc<Mutex<Ways>>,
    faults: Arc<Mutex<LinkFaults>>,
    corruption: Arc<Mutex<Option<Corruption>>>,
    corrupted: Corrupted,
    tap: Option<Arc<dyn Tap>>,
    next_conn: Arc<AtomicU64>,
    traffic: Arc<Traffic>,
    trace: Trace,
}

impl NetControl {
    /// The first host of a world. The others come from [`Self::for_host`]: they share what is down and what is cut.
    #[must_use]
    pub fn new(host: &str, tap: Option<Arc<dyn Tap>>, trace: Trace) -> Self {
        let ways = Ways {
            down: BTreeSet::new(),
            cut: BTreeSet::new(),
            cuts: 0,
            open: BTreeMap::new(),
            accepted: BTreeMap::new(),
            unread: BTreeMap::new(),
        };
        Self {
            host: host.into(),
            ways: Arc::new(Mutex::new(ways)),
            faults: Arc::default(),
            corruption: Arc::default(),
            corrupted: Corrupted::default(),
            tap,
            next_conn: Arc::default(),
            traffic: Arc::default(),
            trace,
        }
    }

    /// Another host of the same world.
    #[must_use]
    pub fn for_host(&self, host: &str, tap: Option<Arc<dyn Tap>>) -> Self {
        Self {
            host: host.into(),
            faults: Arc::default(),
            corruption: Arc::default(),
            traffic: Arc::default(),
            tap,
            ..self.clone()
        }
    }

    /// Says that nothing runs on this host: whoever dials it is refused at once.
    pub fn set_down(&self, down: bool) {
        let mut ways = self.ways.lock();
        if down {
            ways.down.insert(self.host.to_string());
        } else {
            ways.down.remove(&*self.host);
        }
    }

    /// Says whether anything that `from` sends reaches `to`: where it does not, neither can dial the other.
    pub fn set_cut(&self, from: &str, to: &str, cut: bool) {
        let way = (from.to_owned(), to.to_owned());
        let mut ways = self.ways.lock();
        if cut {
            ways.cuts += u64::from(ways.cut.insert(way));
        } else {
            ways.cut.remove(&way);
        }
    }

    /// The connections that are open between two addresses of the world.
    #[must_use]
    pub fn open_between(&self, a: IpAddr, b: IpAddr) -> BTreeSet<(SocketAddr, SocketAddr)> {
        let ways = self.ways.lock();
        let between = |(from, to): &&(SocketAddr, SocketAddr)| {
            (from.ip(), to.ip()) == (a, b) || (from.ip(), to.ip()) == (b, a)
        };
        ways.open.values().filter(between).copied().collect()
    }

    /// How many connections somebody in the world has accepted, and still holds, though who dialled them has gone: its
    /// last word was lost.
    #[must_use]
    pub fn deserted(&self) -> u64 {
        let ways = self.ways.lock();
        let open: BTreeSet<_> = ways.open.values().collect();
        ways.accepted.values().filter(|ends| !open.contains(ends)).count() as u64
    }

    /// Changes what goes wrong with this host's connections.
    pub fn set_faults(&self, faults: LinkFaults) {
        *self.faults.lock() = faults;
    }

    /// From now on one of so many batches that this host sends is damaged on its way, drawn from `rng`.
    pub fn corrupt(&self, one_in: u64, rng: Rng) {
        *self.corruption.lock() = Some(Corruption { one_in, rng });
    }

    /// Nothing that it sends is damaged any more.
    pub fn corrupt_nothing(&self) {
        *self.corruption.lock() = None;
    }

    /// What was damaged on its way, in the whole world.
    #[must_use]
    pub fn corrupted(&self) -> Corrupted {
        self.corrupted.clone()
    }

    /// How often the host has dialled, and written to its connections.
    #[must_use]
    pub fn traffic(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.traffic.dials), count(&self.traffic.writes))
    }

    /// How many connections the host has given up.
    #[must_use]
    pub fn ends(&self) -> u64 {
        self.traffic.ends.load(Ordering::Relaxed)
    }

    /// What this end of a connection sends goes thither. Whoever has a tap is a node.
    fn course(&self, accepted_on: Option<u16>) -> Course {
        match accepted_on {
            Some(KAFKA_PORT) => Course::ToClient,
            None if self.tap.is_none() => Course::ToBroker,
            _ => Course::BetweenNodes,
        }
    }

    fn wrap(&self, stream: TcpStream, gate: Gate, rng: Rng, accepted_on: Option<u16>) -> io::Result<Conn> {
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        let id = self.next_conn.fetch_add(1, Ordering::Relaxed);
        let tap = self.tap.clone().filter(|_| accepted_on.is_some());
        if let (Some(tap), Some(port)) = (&tap, accepted_on) {
            tap.opened(id, port);
        }
        let mut ways = self.ways.lock();
        if accepted_on.is_none() {
            ways.open.insert(id, (local, peer));
        } else {
            ways.accepted.insert(id, (peer, local));
        }
        drop(ways);
        Ok(Conn::new(
            Box::new(SimIo {
                id,
                ends: (local, peer),
                course: self.course(accepted_on),
                stream: Some(stream),
                gate,
                control: self.clone(),
                tap,
                rng,
            }),
            peer,
            local,
        ))
    }
}

pub(super) struct SimNetwork {
    control: NetControl,
    gate: Gate,
    rng: Rng,
}

impl SimNetwork {
    pub(super) fn new(control: NetControl, gate: Gate, rng: Rng) -> Self {
        Self { control, gate, rng }
    }
}

impl NetworkBackend for SimNetwork {
    fn bind<'a>(&'a self, addr: &'a str) -> NetFuture<'a, Listener> {
        Box::pin(async move {
            let (host, port) = split(addr)?;
            let ip = match host {
                "localhost" | "127.0.0.1" => Ipv4Addr::LOCALHOST,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            let listener = TcpListener::bind((IpAddr::V4(ip), port)).await?;
            let local = listener.local_addr()?;
            let rng = Rng::seeded(self.rng.u64());
            Ok(Listener::new(Box::new(SimListener {
                listener,
                local,
                control: self.control.clone(),
                gate: self.gate.clone(),
                rng,
            })))
        })
    }

    fn dial<'a>(&'a self, addr: &'a str) -> NetFuture<'a, Conn> {
        Box::pin(async move {
            let (host, port) = split(addr)?;
            self.control.traffic.dials.fetch_add(1, Ordering::Relaxed);
            let (down, cut, cuts) = {
                let ways = self.control.ways.lock();
                let there = (self.control.host.to_string(), host.to_owned());
                let back = (there.1.clone(), there.0.clone());
                (
                    ways.down.contains(host),
                    ways.cut.contains(&there) || ways.cut.contains(&back),
                    ways.cuts,
                )
            };
            if cut {
                tokio::time::sleep(DIAL_TIMEOUT).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            if down {
                tokio::time::sleep(REFUSED_AFTER).await;
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            // What is lost on the way is not sent again here: who waits for it waits in vain.
            let connected = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect((host, port))).await;
            let connected = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
            // What is cut off while it is on its way is refused here, and by no network: a process that lives was taken for a
            // dead one (4438 of any size, 60 s).
            if connected.is_err() && self.control.ways.lock().cuts != cuts {
                tokio::time::sleep(DIAL_TIMEOUT).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            let stream = connected?;
            self.control
                .trace
                .detail(&self.control.host, "dial", u64::from(port), 0);
            let rng = Rng::seeded(self.rng.u64());
            self.control.wrap(stream, self.gate.clone(), rng, None)
        })
    }
}

fn split(addr: &str) -> io::Result<(&str, u16)> {
    let wrong = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{addr}: host:port is expected"),
        )
    };
    let (host, port) = addr.rsplit_once(':').ok_or_else(wrong)?;
    Ok((host, port.parse().map_err(|_| wrong())?))
}

struct SimListener {
    listener: TcpListener,
    local: SocketAddr,
    control: NetControl,
    gate: Gate,
    rng: Rng,
}

impl ListenerBackend for SimListener {
    fn accept(&mut self) -> NetFuture<'_, Conn> {
        Box::pin(async move {
            let (stream, _) = self.listener.accept().await?;
            let rng = Rng::seeded(self.rng.u64());
            self.control
                .wrap(stream, self.gate.clone(), rng, Some(self.local.port()))
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

struct SimIo {
    id: u64,
    /// This end, and the other one.
    ends: (SocketAddr, SocketAddr),
    course: Course,
    /// `None`: a fault broke the connection.
    stream: Option<TcpStream>,
    /// While the process stands still nothing is read or written, whoever asks.
    gate: Gate,
    control: NetControl,
    tap: Option<Arc<dyn Tap>>,
    rng: Rng,
}

impl SimIo {
    fn draws(&self, one_in: u64) -> bool {
        one_in != 0 && self.rng.chance(1, one_in)
    }

    /// What arrives in place of `bytes`, and what was done to them.
    fn on_the_way(&self, bytes: &[u8]) -> Option<(Vec<u8>, Damage)> {
        let corruption = self.control.corruption.lock();
        let Corruption { one_in, rng } = corruption.as_ref()?;
        corrupt::corrupt(bytes, self.course, *one_in, rng)
    }

    fn note_damage(&self, damage: Damage) {
        self.control.trace.event(
            &self.control.host,
            format_args!("net: a bit of a batch turns over on connection {}", self.id),
        );
        self.control.corrupted.add(damage);
    }

    fn break_off(&mut self, why: &str) -> io::Error {
        if self.stream.take().is_some() {
            self.control.trace.event(
                &self.control.host,
                format_args!("net: connection {} {why}", self.id),
            );
        }
        io::ErrorKind::ConnectionReset.into()
    }

    /// The other end has to read before more is written.
    fn must_wait(&self, cx: &Context<'_>) -> bool {
        let mut ways = self.control.ways.lock();
        let Some(unread) = ways.unread.get_mut(&self.ends) else {
            return false;
        };
        let full = unread.bytes >= WINDOW_BYTES;
        if full {
            unread.writer = Some(cx.waker().clone());
        }
        full
    }

    fn note_read(&self, bytes: usize) {
        let mut ways = self.control.ways.lock();
        let Some(unread) = ways.unread.get_mut(&(self.ends.1, self.ends.0)) else {
            return;
        };
        unread.bytes = unread.bytes.saturating_sub(bytes);
        let writer = unread.writer.take();
        drop(ways);
        if let Some(writer) = writer {
            writer.wake();
        }
    }

    fn note_sent(&self, bytes: &[u8]) {
        self.control.traffic.writes.fetch_add(1, Ordering::Relaxed);
        let mut ways = self.control.ways.lock();
        ways.unread.entry(self.ends).or_default().bytes += bytes.len();
        drop(ways);
        self.control
            .trace
            .detail(&self.control.host, "net sent", bytes.len() as u64, fnv_of(bytes));
        if let Some(tap) = &self.tap {
            tap.sent(self.id, bytes);
        }
    }
}

impl AsyncRead for SimIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.gate.poll_open(cx));
        let faults = *self.control.faults.lock();
        let room = if self.draws(faults.chop_one_in) {
            1
        } else {
            buf.remaining()
        }
        .min(buf.remaining());
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let before = buf.filled().len();
        let mut part = buf.take(room);
        let polled = Pin::new(stream).poll_read(cx, &mut part);
        let read = part.filled().len();
        let bytes = part.filled().to_vec();
        if read > 0 {
            buf.initialize_unfilled_to(read).copy_from_slice(&bytes);
            buf.advance(read);
            self.note_read(read);
            if let Some(tap) = &self.tap {
                tap.received(self.id, &buf.filled()[before..]);
            }
        }
        polled
    }
}

impl AsyncWrite for SimIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.gate.poll_open(cx));
        if self.stream.is_some() && self.must_wait(cx) {
            return Poll::Pending;
        }
        let faults = *self.control.faults.lock();
        if self.draws(faults.reset_one_in) {
            return Poll::Ready(Err(self.break_off("is reset")));
        }
        let cut = self.draws(faults.cut_one_in);
        let chopped = cut || self.draws(faults.chop_one_in);
        let len = match buf.len() {
            0 | 1 => buf.len(),
            len if chopped => 1 + usize::try_from(self.rng.below(len.min(64) as u64)).unwrap_or(0),
            len => len,
        };
        let sent = &buf[..len.min(buf.len())];
        let damaged = self.on_the_way(sent);
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        };
        let arrives = damaged.as_ref().map_or(sent, |(bytes, _)| bytes);
        let polled = Pin::new(stream).poll_write(cx, arrives);
        if let Poll::Ready(Ok(written)) = polled {
            self.note_sent(&sent[..written]);
            if let Some((_, damage)) = damaged {
                self.note_damage(damage);
            }
            if cut {
                return Poll::Ready(Err(self.break_off("is cut in the middle of a frame")));
            }
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.gate.poll_open(cx));
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_flush(cx),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.gate.poll_open(cx));
        match &mut self.stream {
            Some(stream) => Pin::new(stream).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for SimIo {
    fn drop(&mut self) {
        // hyper gives up a connection whose peer has gone while the process stands still: it does so when that goes on. Where
        // there is no runtime any more the process dies.
        if self.gate.is_closed()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let kept = Self {
                id: self.id,
                ends: self.ends,
                course: self.course,
                stream: self.stream.take(),
                // It waits once.
                gate: Gate::default(),
                control: self.control.clone(),
                tap: self.tap.take(),
                rng: self.rng.clone(),
            };
            runtime.spawn(self.gate.hold(async move { drop(kept) }));
            return;
        }
        self.control.traffic.ends.fetch_add(1, Ordering::Relaxed);
        let mut ways = self.control.ways.lock();
        ways.open.remove(&self.id);
        ways.accepted.remove(&self.id);
        // Whoever waits for the other end to read waits no longer: what it writes now goes nowhere.
        let (from, to) = self.ends;
        let ended = [ways.unread.remove(&(from, to)), ways.unread.remove(&(to, from))];
        drop(ways);
        for writer in ended.into_iter().flatten().filter_map(|unread| unread.writer) {
            writer.wake();
        }
        if let Some(tap) = &self.tap {
            tap.closed(self.id);
        }
    }
}
