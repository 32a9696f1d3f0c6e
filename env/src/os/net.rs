use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use crate::net::{Conn, Listener, ListenerBackend, NetFuture, NetworkBackend};

pub(crate) struct OsNetwork;

impl NetworkBackend for OsNetwork {
    fn bind<'a>(&'a self, addr: &'a str) -> NetFuture<'a, Listener> {
        Box::pin(async move {
            let listener = TcpListener::bind(addr).await?;
            let local = listener.local_addr()?;
            Ok(Listener::new(Box::new(OsListener { listener, local })))
        })
    }

    fn dial<'a>(&'a self, addr: &'a str) -> NetFuture<'a, Conn> {
        Box::pin(async move { conn(TcpStream::connect(addr).await?) })
    }
}

struct OsListener {
    listener: TcpListener,
    local: SocketAddr,
}

impl ListenerBackend for OsListener {
    fn accept(&mut self) -> NetFuture<'_, Conn> {
        Box::pin(async move {
            let (stream, _) = self.listener.accept().await?;
            conn(stream)
        })
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

fn conn(stream: TcpStream) -> io::Result<Conn> {
    stream.set_nodelay(true)?;
    let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
    Ok(Conn::new(Box::new(stream), peer, local))
}
