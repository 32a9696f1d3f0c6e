//! Health and metrics over HTTP.
//!
//! `/health/live` says whether the process works (a supervisor restarts it if not), `/health/ready` whether the node
//! serves (a balancer sends clients elsewhere if not); both answer 200 or 503 with the reasons, and with notes about
//! what is wrong elsewhere in the cluster. `/metrics` is for Prometheus. Deliberately absent: anything that changes the
//! node, and so any need to know who asks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use skerry_env::{Conn, Env, Listener, TaskHandle};
use tokio_util::sync::CancellationToken;

/// Connections served at once; a further one is closed. A scraper and a few probes need a handful.
const CONNECTIONS_MAX: usize = 32;
/// For one request from the connection to the last byte of its answer. A connection serves one.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Headers of a request together. Probes send a few hundred bytes.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 64;
/// After an accept that failed: the system is out of descriptors, and more tries at once would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether something is well, and if not why.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// What is wrong; empty: nothing.
    pub reasons: Vec<String>,
    /// What is wrong elsewhere, and does not keep this node from its work.
    pub notes: Vec<String>,
}

impl Health {
    /// All is well.
    #[must_use]
    pub fn ok() -> Self {
        Self::default()
    }

    /// Well if there are no reasons.
    #[must_use]
    pub fn from_reasons(reasons: Vec<String>) -> Self {
        Self {
            reasons,
            notes: Vec::new(),
        }
    }
}

/// What administration asks of a node.
pub trait AdminState: Send + Sync {
    /// The process works.
    fn live(&self) -> Health;
    /// The node serves.
    fn ready(&self) -> Health;
    /// Prometheus' text format.
    fn metrics(&self) -> String;
}

/// Starts to serve, until `stop` is cancelled.
pub fn start(
    env: &Env,
    listener: Listener,
    state: Arc<dyn AdminState>,
    stop: CancellationToken,
) -> TaskHandle {
    let env = env.clone();
    env.clone().tasks.spawn("admin-http", async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = serve(&env, listener, state) => {}
        }
    })
}

/// One task serves all: an answer is a few kilobytes from memory.
async fn serve(env: &Env, mut listener: Listener, state: Arc<dyn AdminState>) {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = connections.next(), if !connections.is_empty() => {}
            accepted = listener.accept() => match accepted {
                Ok(conn) if connections.len() < CONNECTIONS_MAX => {
                    connections.push(connection(env, conn, state.clone()));
                }
                Ok(_) => tracing::debug!("too many connections for administration: one is closed"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for administration");
                    env.clock.sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

async fn connection(env: &Env, conn: Conn, state: Arc<dyn AdminState>) {
    let peer = conn.peer();
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&*state, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEADER_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        // The date would be read past the node's clock.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(conn), service);
    match env.clock.timeout(REQUEST_DEADLINE, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%peer, %error, "administration: a request ended early"),
        Err(_) => tracing::debug!(%peer, "administration: a request took too long"),
    }
}

fn answer(state: &dyn AdminState, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .unwrap_or("");
    let Page {
        status,
        content_type,
        body,
    } = page(state, request.method(), request.uri().path(), accept);
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    response
}

struct Page {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' older format. What is sent is OpenMetrics, whose additional lines are comments there.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn page(state: &dyn AdminState, method: &Method, path: &str, accept: &str) -> Page {
    let text = |status, body: &str| Page {
        status,
        content_type: TEXT,
        body: body.to_owned(),
    };
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are served here\n");
    }
    match path {
        "/" => text(StatusCode::OK, "/health/live\n/health/ready\n/metrics\n"),
        "/health/live" => health(&state.live()),
        "/health/ready" => health(&state.ready()),
        "/metrics" => Page {
            status: StatusCode::OK,
            content_type: if accept.contains("application/openmetrics-text") {
                OPEN_METRICS
            } else {
                PROMETHEUS
            },
            body: state.metrics(),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "served here: /health/live, /health/ready, /metrics\n",
        ),
    }
}

fn health(health: &Health) -> Page {
    let well = health.reasons.is_empty();
    let body = serde_json::json!({ "status": if well { "ok" } else { "unwell" }, "reasons": health.reasons, "notes": health.notes });
    Page {
        status: if well {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        content_type: JSON,
        body: format!("{body}\n"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Sick;

    impl AdminState for Sick {
        fn live(&self) -> Health {
            Health::ok()
        }

        fn ready(&self) -> Health {
            Health::from_reasons(vec!["the disk is nearly full".to_owned()])
        }

        fn metrics(&self) -> String {
            "skerry_requests_total 1\n# EOF\n".to_owned()
        }
    }

    /// Sends `request` and returns all that comes back until the connection is closed.
    async fn exchange(env: &Env, addr: &str, request: &str) -> String {
        let talk = async {
            let mut conn = env.net.dial(addr).await.unwrap();
            conn.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // A reset after the answer is as good as an end.
            let _ = conn.read_to_string(&mut answer).await;
            answer.replace("\r\n", "\n")
        };
        env.clock
            .timeout(Duration::from_secs(20), talk)
            .await
            .expect("an answer in time")
    }

    #[test]
    fn what_is_served() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let env = Env::os();
            let listener = env.net.bind("127.0.0.1:0").await.unwrap();
            let addr = listener.local_addr().to_string();
            let stop = CancellationToken::new();
            let task = start(&env, listener, Arc::new(Sick), stop.clone());
            let mut transcript = String::new();
            for request in [
                "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n",
                "GET /health/ready HTTP/1.1\r\nhost: x\r\n\r\n",
                "GET /metrics HTTP/1.1\r\nhost: x\r\naccept: application/openmetrics-text\r\n\r\n",
                "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
                "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
                "GET /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n",
                "\x00\x00\x00\x10not http at all",
            ] {
                transcript.push_str(&exchange(&env, &addr, request).await);
                transcript.push_str("----\n");
            }
            let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(100_000));
            let status = exchange(&env, &addr, &long)
                .await
                .lines()
                .next()
                .unwrap_or("")
                .to_owned();
            transcript.push_str(&format!("{status}\n"));
            stop.cancel();
            task.join().await;
            assert!(env.net.dial(&addr).await.is_err());
            expect![[r#"
                HTTP/1.1 200 OK
                content-type: application/json
                cache-control: no-store
                connection: close
                content-length: 40

                {"notes":[],"reasons":[],"status":"ok"}
                ----
                HTTP/1.1 503 Service Unavailable
                content-type: application/json
                cache-control: no-store
                connection: close
                content-length: 69

                {"notes":[],"reasons":["the disk is nearly full"],"status":"unwell"}
                ----
                HTTP/1.1 200 OK
                content-type: application/openmetrics-text; version=1.0.0; charset=utf-8
                cache-control: no-store
                connection: close
                content-length: 30

                skerry_requests_total 1
                # EOF
                ----
                HTTP/1.1 200 OK
                content-type: text/plain; version=0.0.4; charset=utf-8
                cache-control: no-store
                connection: close
                content-length: 30

                ----
                HTTP/1.1 405 Method Not Allowed
                content-type: text/plain; charset=utf-8
                cache-control: no-store
                allow: GET, HEAD
                connection: close
                content-length: 29

                GET and HEAD are served here
                ----
                HTTP/1.1 404 Not Found
                content-type: text/plain; charset=utf-8
                cache-control: no-store
                connection: close
                content-length: 51

                served here: /health/live, /health/ready, /metrics
                ----
                HTTP/1.1 400 Bad Request
                connection: close
                content-length: 0

                ----
                HTTP/1.1 431 Request Header Fields Too Large
            "#]]
            .assert_eq(&transcript);
        });
    }
}
