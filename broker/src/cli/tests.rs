use clap::CommandFactory as _;
use expect_test::{Expect, expect};

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

fn parses(line: &str, expected: Expect) {
    let arguments = line.split_whitespace();
    expected.assert_eq(&match Cli::try_parse_from(arguments) {
        Ok(cli) => match cli.command {
            Command::Consume(arguments) => format!("{arguments:?}"),
            Command::Group(command) => format!("{command:?}"),
            Command::Topic(command) => format!("{command:?}"),
            other => format!("{other:?}"),
        },
        Err(error) => error.to_string().lines().take(3).collect::<Vec<_>>().join("\n"),
    });
}

#[test]
fn commands_are_read() {
    parses(
        "skerry topic create t -p 3 --config a=b=c --format json",
        expect![[
            r#"Create(CreateArgs { name: "t", partitions: Some(3), replication_factor: None, configs: [("a", "b=c")], if_not_exists: false, dry_run: false, connect: Connect { bootstrap: "127.0.0.1:9092", format: Json } })"#
        ]],
    );
    parses(
        "skerry topic create t --config a",
        expect![[r#"
        error: invalid value 'a' for '--config <KEY=VALUE>': KEY=VALUE is expected

        For more information, try '--help'."#]],
    );
    parses(
        "skerry topic create t -p 0",
        expect![[r#"
        error: invalid value '0' for '--partitions <N>': 0 is not in 1..=2147483647

        For more information, try '--help'."#]],
    );
    parses(
        "skerry consume t --offset soon",
        expect![[r#"
        error: invalid value 'soon' for '--offset <OFFSET>': an offset, earliest, latest, or @MILLISECONDS is expected

        For more information, try '--help'."#]],
    );
    parses(
        "skerry consume t --group g --offset 3",
        expect![[r#"
        error: the argument '--group <GROUP>' cannot be used with '--offset <OFFSET>'

        Usage: skerry consume --group <GROUP> <TOPICS>..."#]],
    );
    parses(
        "skerry group reset g --to @5 --topic a:1 --topic b",
        expect![[
            r#"Reset(ResetArgs { group: "g", topics: ["a:1", "b"], to: Find(At(5ms)), execute: false, connect: Connect { bootstrap: "127.0.0.1:9092", format: Table } })"#
        ]],
    );
    parses(
        "skerry produce t -z brotli",
        expect![[r#"
        error: invalid value 'brotli' for '--compression <CODEC>': unknown compression brotli: none, gzip, snappy, lz4 or zstd is expected

        For more information, try '--help'."#]],
    );
    parses(
        "skerry start --nod-id 3",
        expect![[r#"
        error: unexpected argument '--nod-id' found

          tip: a similar argument exists: '--node-id'"#]],
    );
    parses(
        "skerry cluster helth",
        expect![[r#"
            error: unrecognized subcommand 'helth'

              tip: some similar subcommands exist: 'elect', 'help', 'health'"#]],
    );
}

#[test]
fn every_command_has_a_description() {
    fn walk(command: &clap::Command) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            assert!(sub.get_about().is_some(), "{}", sub.get_name());
            for argument in sub.get_arguments() {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    sub.get_name(),
                    argument.get_id()
                );
            }
            walk(sub);
        }
    }
    let mut command = Cli::command();
    command.build();
    walk(&command);
}

#[test]
fn help_teaches() {
    let mut command = Cli::command();
    expect![[r#"
        A Kafka-compatible broker in one small binary.

        Usage: skerry [OPTIONS] <COMMAND>

        Commands:
          start       Run a node
          dev         Run a whole cluster of several nodes on this machine
          topic       Make, list, describe, change and delete topics [alias: topics]
          produce     Write records to a topic, one for each line of stdin
          consume     Read records from topics
          group       List, describe, reset and delete consumer groups [alias: groups]
          cluster     Look at the cluster, and change who votes, leads and has replicas
          log         Look into log files
          config      Explain settings, check a file of them
          completion  Print a script that completes commands in a shell
          help        Print this message or the help of the given subcommand(s)

        Options:
          -h, --help     Print help
          -V, --version  Print version

        Everywhere:
              --log-level <FILTER>  What is logged to stderr: error, warn, info, debug, trace, or a filter such as skerry=debug,openraft=warn [env: SKERRY_LOG]

        Try it:
          skerry start                                  a broker on 127.0.0.1:9092, its data in ./skerry-data
          echo hello | skerry produce greetings         the topic is made on first use
          skerry consume greetings --from-beginning
          skerry cluster status

        Every Kafka client works as well: kcat -b 127.0.0.1:9092 -t greetings -C -e
        `skerry config explain KEY` explains any setting, `skerry help COMMAND` any command.
    "#]].assert_eq(&command.render_help().to_string());
}

#[test]
fn settings_are_explained() {
    let manual = |scope, key| super::config::manual(crate::config::row(scope, key).unwrap());
    use crate::config::Scope;
    expect![[r#"
        flush.messages   (topic setting)

          Skerry acknowledges acks=all when the records are on stable storage. A topic
          that sets flush.messages or flush.ms itself chooses Kafka's weaker rule
          instead: acknowledged when replicated in memory, flushed after so many
          records. 1 flushes before each acknowledgement.

          default    9223372036854775807   (no limit)
          takes      a whole number of at least 1 messages
          changes    at any time
          otherwise  the broker's log.flush.interval.messages
          set it     skerry topic alter NAME --config flush.messages=VALUE
    "#]]
    .assert_eq(&manual(Scope::Topic, "flush.messages"));
    expect![[r#"
        log.retention.hours   (broker setting)

          The default of retention.ms. A segment is deleted when its newest record is
          older than this; -1: never.

          default    168
          takes      a whole number of hours
          changes    with a restart
          file       "log.retention.hours" = 168
          variable   SKERRY_LOG_RETENTION_HOURS=168
          argument   skerry start --set log.retention.hours=168
    "#]]
    .assert_eq(&manual(Scope::Broker, "log.retention.hours"));
    expect![[r#"
        memory   (node setting)

          The budget of requests, answers and caches. A node at its limit reads its
          sockets more slowly; nothing dies.

          default    256MiB
          takes      a size from 16MiB to 16TiB, such as 256MiB
          changes    with a restart
          file       "memory" = "256MiB"
          variable   SKERRY_MEMORY=256MiB
          argument   skerry start --set memory=256MiB
    "#]]
    .assert_eq(&manual(Scope::Node, "memory"));
    expect![[r#"
        authorizer.class.name   (broker setting)

          Who decides what a user may do. Cannot be changed: Skerry has no such
          security yet, and will not pretend to.

          default    empty
          takes      its default
          changes    never
    "#]]
    .assert_eq(&manual(Scope::Broker, "authorizer.class.name"));
}

#[test]
fn tables_line_up() {
    let mut table = output::Table::new(&["NAME", "N", "LAST"]);
    table.row(["a".to_owned(), "1000".to_owned(), "x".to_owned()]);
    table.row(["überlang".to_owned(), "1".to_owned(), String::new()]);
    expect![[r#"
        NAME      N     LAST
        a         1000  x
        überlang  1
    "#]]
    .assert_eq(&table.to_string());
    assert_eq!(output::thousands(1_234_567), "1,234,567");
    assert_eq!(output::thousands(12), "12");
}
