//! A client that sends what no client sends. The broker closes the connection, or answers an error, and goes on.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Client, pick};

pub(super) async fn run(client: Client) {
    while !client.is_stopping() {
        client.pause(600).await;
        let addrs = &client.shared.cluster.addrs;
        let addr = match &addrs[..] {
            [only] => only,
            several => pick(&client.env, several),
        };
        // Other nodes' port and the administrators' are open too.
        let addr = match client.env.rng.below(6) {
            0 => &addr.replace(":9092", ":9093"),
            1 => &addr.replace(":9092", ":9644"),
            _ => addr,
        };
        let dialled = client
            .env
            .clock
            .timeout(Duration::from_secs(1), client.env.net.dial(addr))
            .await;
        let Ok(Ok(mut conn)) = dialled else { continue };
        let frame = frame(&client);
        if conn.write_all(&frame).await.is_err() {
            continue;
        }
        // Some wait for the end, some go at once, some stay silent for a while.
        match client.env.rng.below(3) {
            0 => {
                let mut answer = [0; 1024];
                let _ = client
                    .env
                    .clock
                    .timeout(Duration::from_secs(1), conn.read(&mut answer))
                    .await;
            }
            1 => drop(conn),
            _ => client.env.clock.sleep(Duration::from_millis(700)).await,
        }
    }
}

fn frame(client: &Client) -> BytesMut {
    let rng = &client.env.rng;
    let mut frame = BytesMut::new();
    let mut noise = vec![0; usize::try_from(rng.below(200)).unwrap_or(0)];
    rng.fill(&mut noise);
    match rng.below(7) {
        // A length that no frame has.
        0 => frame.put_i32(i32::MAX),
        1 => frame.put_i32(-1),
        // A length, and then nothing.
        2 => {
            frame.put_i32(1_000);
            frame.put_slice(&noise[..noise.len().min(100)]);
        }
        // Noise where a header should be.
        3 => {
            frame.put_i32(i32::try_from(noise.len()).unwrap_or(0));
            frame.put_slice(&noise);
        }
        // A known request in an unknown version, an unknown request.
        kind @ (4 | 5) => {
            frame.put_i32(i32::try_from(10 + noise.len()).unwrap_or(0));
            frame.put_i16(if kind == 4 { 0 } else { 999 });
            frame.put_i16(if kind == 4 { 99 } else { 0 });
            frame.put_i32(1);
            frame.put_i16(-1);
            frame.put_slice(&noise);
        }
        // A Produce whose body is noise.
        _ => {
            frame.put_i32(i32::try_from(11 + noise.len()).unwrap_or(0));
            frame.put_i16(0);
            frame.put_i16(9);
            frame.put_i32(1);
            frame.put_i16(-1);
            frame.put_u8(0);
            frame.put_slice(&noise);
        }
    }
    frame
}
