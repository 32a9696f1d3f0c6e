//! Calls to other nodes' cluster ports.

use hyper_util::rt::TokioIo;
use skerry_env::Env;
use tonic::transport::{Channel, Endpoint, Uri};

/// A way to the cluster port at `addr` (`host:port`). It connects when it is used.
pub(crate) fn channel(env: &Env, addr: &str) -> Channel {
    let tasks = env.tasks.clone();
    let (env, addr) = (env.clone(), addr.to_owned());
    let connector = tower::service_fn(move |_: Uri| {
        let (env, addr) = (env.clone(), addr.clone());
        async move { env.net.dial(&addr).await.map(TokioIo::new) }
    });
    // The connector knows the address: the URI only names the protocol.
    Endpoint::from_static("http://cluster.skerry")
        .executor(tasks)
        .connect_with_connector_lazy(connector)
}
