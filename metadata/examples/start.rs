//! How long a quorum of one takes to start, fresh and again, and to decide.

use skerry_env::Env;
use skerry_metadata::state::{FeatureRange, HostPort, RegisterBroker};
use skerry_metadata::{Command, Quorum, QuorumConfig};
use skerry_types::{BrokerId, Uuid, WallMs};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let dir = std::env::args()
        .nth(1)
        .expect("usage: start DIRECTORY (a fresh one)");
    let env = Env::os();
    for round in ["fresh", "again"] {
        let begin = env.clock.now();
        let config = QuorumConfig::single(BrokerId(1), format!("{dir}/quorum"), "127.0.0.1:0");
        let quorum = Quorum::start(env.clone(), config, |_, _| {})
            .await
            .expect("it starts");
        let started = env.clock.now();
        println!("{round}: started in {:?}", started - begin);
        for number in 0..5 {
            let before = env.clock.now();
            let command = Command::RegisterBroker(RegisterBroker {
                broker: BrokerId(1),
                incarnation: Uuid([number; 16]),
                directory: Uuid([7; 16]),
                clean: false,
                kafka: HostPort::new("localhost", 9092),
                cluster: HostPort::new("localhost", 9093),
                rack: None,
                features: FeatureRange::OURS,
                at: WallMs(0),
            });
            quorum.propose(command).await.expect("decided");
            println!("{round}: proposal {number} in {:?}", env.clock.now() - before);
        }
        // Longer than a leader's lease.
        env.clock.sleep(std::time::Duration::from_secs(2)).await;
        let before = env.clock.now();
        quorum
            .propose(Command::SetFeatureLevel { level: 1 })
            .await
            .expect("decided");
        println!("{round}: after a pause in {:?}", env.clock.now() - before);
        let before = env.clock.now();
        quorum.shutdown().await;
        println!("{round}: shutdown in {:?}", env.clock.now() - before);
    }
}
