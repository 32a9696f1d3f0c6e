//! `skerry dev`: a whole cluster of real processes on this machine.
//!
//! Each node holds the other end of a pipe as its stdin and shuts down cleanly when that ends: however this process
//! goes, by Ctrl-C, by a crash or by kill -9, no node is left behind.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use clap::Args;
use skerry_env::Env;
use skerry_env::disk::{read_file, replace_file};
use tokio::sync::mpsc;

use super::failure::Failure;
use super::output::print_line;
use super::start::Signals;

/// The ports of node N are so much above those of node N - 1.
const PORTS_EACH: u16 = 100;
/// Where a node's cluster port is, from its Kafka port: 9093 beside 9092.
const CLUSTER_PORT: u16 = 1;
/// Where its administration is: 9644 beside 9092.
const ADMIN_PORT: u16 = 552;
/// More nodes than that on one machine teach nothing new.
const NODES_MAX: u16 = 15;
/// How often a process is looked at whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of nodes that wait to be printed; then the nodes wait.
const LINES_MAX: usize = 1_024;
/// Says in the data directory which port node 1 has: the nodes remember each other's addresses.
const PORT_FILE: &str = "kafka-port";
/// The last lines of a node that are shown when the cluster does not start.
const TAIL_LINES: usize = 5;

const HELP: &str = "\
Examples:
  skerry dev --nodes 3                          Kafka on 127.0.0.1:9092, 9192 and 9292; data in ./skerry-dev
  skerry dev --nodes 3 --kafka-port 19092 --data-dir /tmp/dev --set num.partitions=6
  skerry cluster status                         from another terminal

Kill a node (its number and process id are in its first line) and watch the others go on: `skerry cluster health`.
The line that is printed when it ends starts it again.";

/// The arguments of `dev`.
#[derive(Args, Clone, Debug)]
#[command(after_help = HELP)]
pub(super) struct DevArgs {
    /// How many nodes
    #[arg(long, short, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: u16,
    /// Where everything is kept, a directory for each node
    #[arg(long, value_name = "DIR", default_value = "./skerry-dev")]
    data_dir: PathBuf,
    /// Where node 1 serves Kafka clients; each further node 100 above the one before
    #[arg(long, value_name = "PORT", default_value_t = 9092)]
    kafka_port: u16,
    /// Any setting, for every node; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl DevArgs {
    fn check(&self) -> Result<(), Failure> {
        let last = u32::from(self.kafka_port) + u32::from(PORTS_EACH) * u32::from(self.nodes - 1);
        if self.kafka_port == 0 || last + u32::from(ADMIN_PORT) > u32::from(u16::MAX) {
            return Err(Failure::new(format!(
                "--kafka-port {}: the ports of {} nodes do not fit between 1 and 65535",
                self.kafka_port, self.nodes
            ))
            .hint(format!("each node takes ports {PORTS_EACH} above the one before")));
        }
        Ok(())
    }

    /// A cluster cannot move to other ports: each node would look for the others where they were.
    fn check_ports(&self) -> Result<(), Failure> {
        let disk = skerry_env::os_disk();
        let path = self.data_dir.join(PORT_FILE);
        let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        let known = read_file(&*disk, &path, 64).map_err(failed)?;
        match known {
            Some(bytes) => {
                let known = String::from_utf8_lossy(&bytes).trim().to_owned();
                if known == self.kafka_port.to_string() {
                    return Ok(());
                }
                let dir = self.data_dir.display();
                Err(
                    Failure::new(format!("the cluster in {dir} has its ports from {known} on")).hint(
                        format!("--kafka-port {known} starts it; another --data-dir starts a new one"),
                    ),
                )
            }
            None => {
                disk.create_dir_all(&self.data_dir).map_err(failed)?;
                replace_file(&*disk, &path, format!("{}\n", self.kafka_port).as_bytes()).map_err(failed)
            }
        }
    }

    fn port(&self, node: u16) -> u16 {
        self.kafka_port + PORTS_EACH * (node - 1)
    }

    fn bootstrap(&self) -> String {
        let all: Vec<String> = (1..=self.nodes)
            .map(|node| format!("127.0.0.1:{}", self.port(node)))
            .collect();
        all.join(",")
    }

    /// A quorum has 1, 3 or 5 voters; the other nodes are learners.
    fn voters(&self) -> String {
        let count = match self.nodes {
            0..=2 => 1,
            3..=4 => 3,
            _ => 5,
        };
        let voters: Vec<String> = (1..=count)
            .map(|node| format!("{node}@127.0.0.1:{}", self.port(node) + CLUSTER_PORT))
            .collect();
        voters.join(",")
    }

    /// What `skerry` is told to become node `node`.
    fn words(&self, node: u16) -> Vec<String> {
        let port = self.port(node);
        let mut words: Vec<String> = vec!["start".to_owned()];
        let mut flag = |name: &str, value: String| words.extend([name.to_owned(), value]);
        flag("--node-id", node.to_string());
        let dir = self.data_dir.join(format!("node-{node}"));
        flag("--data-dir", dir.display().to_string());
        flag("--kafka-listen", format!("127.0.0.1:{port}"));
        flag("--cluster-listen", format!("127.0.0.1:{}", port + CLUSTER_PORT));
        flag("--admin-listen", format!("127.0.0.1:{}", port + ADMIN_PORT));
        flag("--voters", self.voters());
        // What a cluster is for: topics that are made without a number survive a node.
        flag(
            "--set",
            format!("default.replication.factor={}", self.nodes.min(3)),
        );
        for set in &self.set {
            flag("--set", set.clone());
        }
        words
    }
}

pub(super) fn run(arguments: &DevArgs) -> Result<(), Failure> {
    arguments.check()?;
    arguments.check_ports()?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::new(format!("cannot tell where this program is: {error}")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(async {
        let (lines, printed) = mpsc::channel(LINES_MAX);
        let mut cluster = Cluster {
            env: Env::os(),
            arguments,
            program,
            nodes: Vec::new(),
            lines,
        };
        cluster.run(printed).await
    });
    runtime.shutdown_background();
    outcome
}

/// A line that a node has printed.
struct Line {
    node: u16,
    text: String,
}

struct Node {
    number: u16,
    child: Child,
    /// The node runs until this is dropped.
    stdin: Option<ChildStdin>,
    /// How it ended.
    ended: Option<ExitStatus>,
    ready: bool,
    tail: Vec<String>,
}

struct Cluster<'a> {
    env: Env,
    arguments: &'a DevArgs,
    program: PathBuf,
    nodes: Vec<Node>,
    lines: mpsc::Sender<Line>,
}

impl Cluster<'_> {
    async fn run(&mut self, mut printed: mpsc::Receiver<Line>) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        for number in 1..=self.arguments.nodes {
            let node = self.spawn(number)?;
            self.nodes.push(node);
        }
        let mut announced = false;
        loop {
            tokio::select! {
                biased;
                () = signals.next() => break,
                Some(line) = printed.recv() => self.print(line)?,
                () = self.env.clock.sleep(LOOK) => {}
            }
            let died = self.bury()?;
            if died > 0 && !announced {
                self.drain(&mut printed).await?;
                let failure = self.why_not_started();
                self.stop(&mut signals, &mut printed).await?;
                return Err(failure);
            }
            if self.nodes.iter().all(|node| node.ended.is_some()) {
                return Err(Failure::new("no node is left"));
            }
            if !announced && self.nodes.iter().all(|node| node.ready) {
                announced = true;
                print_line(&format!(
                    "\nskerry dev ready bootstrap={}\n",
                    self.arguments.bootstrap()
                ))?;
            }
        }
        let died_before = self.nodes.iter().filter(|node| node.ended.is_some()).count();
        self.stop(&mut signals, &mut printed).await?;
        let unclean = self
            .nodes
            .iter()
            .any(|node| !node.ended.is_some_and(|status| status.success()));
        match (died_before, unclean) {
            (0, false) => print_line("all nodes have shut down cleanly"),
            (0, true) => Err(Failure::new("a node did not shut down cleanly")),
            (died, _) => Err(Failure::new(format!("{died} nodes had ended before"))),
        }
    }

    fn spawn(&self, number: u16) -> Result<Node, Failure> {
        let mut child = Command::new(&self.program)
            .args(self.arguments.words(number))
            .arg("--until-stdin-ends")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal goes to a whole group: the nodes are stopped in order instead.
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::new(format!("cannot start node {number}: {error}")))?;
        let stdin = child.stdin.take();
        if let Some(stdout) = child.stdout.take() {
            self.follow(number, stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            self.follow(number, stderr);
        }
        print_line(&format!("node {number} | process {}", child.id()))?;
        Ok(Node {
            number,
            child,
            stdin,
            ended: None,
            ready: false,
            tail: Vec::new(),
        })
    }

    /// Hands on what a node prints, line by line, until it ends.
    fn follow(&self, node: u16, output: impl Read + Send + 'static) {
        let (lines, tasks) = (self.lines.clone(), self.env.tasks.clone());
        let reading = async move {
            tasks
                .run_blocking(move || {
                    let mut output = BufReader::new(output);
                    let mut bytes = Vec::new();
                    while output.read_until(b'\n', &mut bytes).is_ok_and(|read| read > 0) {
                        let text = String::from_utf8_lossy(&bytes).trim_end().to_owned();
                        bytes.clear();
                        if lines.blocking_send(Line { node, text }).is_err() {
                            return;
                        }
                    }
                })
                .await;
        };
        // Ends with the node's output.
        drop(self.env.tasks.spawn("node-output", reading));
    }

    fn print(&mut self, line: Line) -> Result<(), Failure> {
        let Line { node, text } = line;
        if let Some(node) = self.nodes.iter_mut().find(|one| one.number == node) {
            node.ready |= text.starts_with("skerry ready ");
            node.tail.push(text.clone());
            if node.tail.len() > TAIL_LINES {
                node.tail.remove(0);
            }
        }
        print_line(&format!("node {node} | {text}"))
    }

    /// Prints what has come in so far.
    async fn drain(&mut self, printed: &mut mpsc::Receiver<Line>) -> Result<(), Failure> {
        while let Ok(Some(line)) = self.env.clock.timeout(LOOK * 4, printed.recv()).await {
            self.print(line)?;
        }
        Ok(())
    }

    /// Tells of nodes that have ended, and counts them.
    fn bury(&mut self) -> Result<usize, Failure> {
        let mut died = 0;
        for node in &mut self.nodes {
            if node.ended.is_some() {
                continue;
            }
            let ended = node.child.try_wait();
            let Ok(Some(status)) = ended else { continue };
            node.ended = Some(status);
            if node.stdin.take().is_some() {
                died += 1;
                let words = self.arguments.words(node.number).join(" ");
                print_line(&format!(
                    "node {} | HAS ENDED: {}; start it again with: {} {words}",
                    node.number,
                    how(status),
                    self.program.display(),
                ))?;
            }
        }
        Ok(died)
    }

    fn why_not_started(&self) -> Failure {
        let ended = self.nodes.iter().filter(|node| node.ended.is_some());
        let mut failure = Failure::new("the cluster did not start: a node has ended");
        for node in ended {
            for line in &node.tail {
                failure = failure.hint(format!("node {}: {line}", node.number));
            }
        }
        failure
    }

    /// Stops one node after the other, so that each hands over to those that are left; all at once at a second signal.
    async fn stop(
        &mut self,
        signals: &mut Signals,
        printed: &mut mpsc::Receiver<Line>,
    ) -> Result<(), Failure> {
        for place in (0..self.nodes.len()).rev() {
            // Its stdin ends, and so does it.
            self.nodes[place].stdin = None;
            while self.nodes[place].ended.is_none() {
                tokio::select! {
                    biased;
                    () = signals.next() => self.kill(),
                    Some(line) = printed.recv() => self.print(line)?,
                    () = self.env.clock.sleep(LOOK) => {}
                }
                self.bury()?;
            }
        }
        self.drain(printed).await
    }

    fn kill(&mut self) {
        for node in &mut self.nodes {
            if node.ended.is_none() {
                node.stdin = None;
                // It may have ended meanwhile.
                let _ = node.child.kill();
            }
        }
        let _ = writeln!(std::io::stderr(), "a second signal: the nodes are killed");
    }
}

fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(9)) => "killed (signal 9)".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dev(nodes: u16, kafka_port: u16) -> DevArgs {
        DevArgs {
            nodes,
            data_dir: "d".into(),
            kafka_port,
            set: vec!["num.partitions=6".to_owned()],
        }
    }

    #[test]
    fn nodes_have_the_ports_of_the_contract() {
        let three = dev(3, 9092);
        assert_eq!(three.bootstrap(), "127.0.0.1:9092,127.0.0.1:9192,127.0.0.1:9292");
        assert_eq!(
            three.words(2).join(" "),
            "start --node-id 2 --data-dir d/node-2 --kafka-listen 127.0.0.1:9192 --cluster-listen 127.0.0.1:9193 \
             --admin-listen 127.0.0.1:9744 --voters 1@127.0.0.1:9093,2@127.0.0.1:9193,3@127.0.0.1:9293 \
             --set default.replication.factor=3 --set num.partitions=6"
        );
        assert_eq!(dev(2, 9092).voters(), "1@127.0.0.1:9093");
        assert_eq!(dev(7, 9092).voters().split(',').count(), 5);
    }

    #[test]
    fn a_cluster_stays_at_its_ports() {
        let dir = tempfile::tempdir().unwrap();
        let at = |kafka_port| DevArgs {
            data_dir: dir.path().join("d"),
            ..dev(3, kafka_port)
        };
        at(9_092).check_ports().unwrap();
        at(9_092).check_ports().unwrap();
        let refused = at(19_092).check_ports().unwrap_err().to_string();
        assert!(refused.contains("--kafka-port 9092 starts it"), "{refused}");
    }

    #[test]
    fn no_two_ports_of_a_cluster_are_the_same() {
        let many = dev(NODES_MAX, 9092);
        let mut ports: Vec<u16> = (1..=NODES_MAX)
            .flat_map(|node| [0, CLUSTER_PORT, ADMIN_PORT].map(|above| many.port(node) + above))
            .collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), usize::from(NODES_MAX) * 3);
        assert!(many.check().is_ok());
        assert!(dev(3, 65_000).check().is_err());
        assert!(dev(1, 0).check().is_err());
    }
}
