//! A network whose links can be cut, one way or both, on top of the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use skerry_env::net::{NetFuture, NetworkBackend};
use skerry_env::{Conn, Listener, Network};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

/// The links between nodes. Bytes on a cut link wait, as TCP's do; a connection over it is neither made nor refused.
pub struct Links {
    owners: Mutex<BTreeMap<String, i32>>,
    cut: watch::Sender<BTreeSet<(i32, i32)>>,
}

impl Links {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            owners: Mutex::default(),
            cut: watch::Sender::default(),
        })
    }

    /// `node` listens at `addr`.
    pub fn place(&self, addr: &str, node: i32) {
        self.owners.lock().insert(addr.to_owned(), node);
    }

    /// Nothing that `from` says reaches `to`.
    pub fn cut_one_way(&self, from: i32, to: i32) {
        self.cut.send_modify(|cut| {
            cut.insert((from, to));
        });
    }

    pub fn cut(&self, one: i32, other: i32) {
        self.cut_one_way(one, other);
        self.cut_one_way(other, one);
    }

    pub fn heal(&self) {
        self.cut.send_replace(BTreeSet::new());
    }

    async fn open(&self, from: i32, to: i32) {
        let _ = self
            .cut
            .subscribe()
            .wait_for(|cut| !cut.contains(&(from, to)))
            .await;
    }

    /// The network as `node` sees it.
    pub fn network(self: &Arc<Self>, node: i32, real: Network) -> Network {
        Network::new(Arc::new(Seen {
            links: Arc::clone(self),
            node,
            real,
        }))
    }
}

struct Seen {
    links: Arc<Links>,
    node: i32,
    real: Network,
}

impl NetworkBackend for Seen {
    fn bind<'a>(&'a self, addr: &'a str) -> NetFuture<'a, Listener> {
        Box::pin(self.real.bind(addr))
    }

    fn dial<'a>(&'a self, addr: &'a str) -> NetFuture<'a, Conn> {
        Box::pin(async move {
            let owner = self.links.owners.lock().get(addr).copied();
            let Some(other) = owner else {
                return self.real.dial(addr).await;
            };
            self.links.open(self.node, other).await;
            self.links.open(other, self.node).await;
            let conn = self.real.dial(addr).await?;
            Ok(gated(conn, &self.links, self.node, other))
        })
    }
}

/// Both directions of `conn` through the links.
fn gated(conn: Conn, links: &Arc<Links>, node: i32, other: i32) -> Conn {
    let (peer, local) = (conn.peer(), conn.local());
    let (near, far) = tokio::io::duplex(256 << 10);
    let (conn_read, conn_write) = tokio::io::split(conn);
    let (far_read, far_write) = tokio::io::split(far);
    tokio::spawn(pump(conn_read, far_write, Arc::clone(links), other, node));
    tokio::spawn(pump(far_read, conn_write, Arc::clone(links), node, other));
    Conn::new(Box::new(near), peer, local)
}

async fn pump(
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
    links: Arc<Links>,
    from: i32,
    to: i32,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = read.read(&mut buffer).await.unwrap_or(0);
        links.open(from, to).await;
        if count == 0 {
            return write.shutdown().await;
        }
        write.write_all(&buffer[..count]).await?;
    }
}
