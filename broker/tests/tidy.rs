//! Rules of the house that no compiler checks.
#![expect(
    clippy::disallowed_methods,
    reason = "this test reads the sources that it judges"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Longer files are cut by topic.
const FILE_LINES_MAX: usize = 850;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a readable directory").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && name != ".git" {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    sources(&root(), &mut found);
    found.sort();
    assert!(
        found.len() > 50,
        "the search for sources is broken: {} found",
        found.len()
    );
    found
}

#[test]
fn no_file_is_too_long_to_be_read() {
    let long: Vec<String> = all_sources()
        .iter()
        .map(|path| (path, fs::read_to_string(path).expect("text").lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert!(
        long.is_empty(),
        "cut these by topic (at most {FILE_LINES_MAX} lines):\n{}",
        long.join("\n")
    );
}

#[test]
fn pure_crates_know_no_runtime() {
    for pure in [
        "types",
        "checker",
        "metadata/state",
        "broker/replica",
        "broker/coordinator",
    ] {
        let manifest = fs::read_to_string(root().join(pure).join("Cargo.toml")).expect("a manifest");
        for runtime in ["tokio", "tonic", "openraft", "rocksdb", "skerry-env"] {
            let named = manifest.lines().any(|line| line.starts_with(runtime));
            assert!(!named, "{pure} is pure: it must not depend on {runtime}");
        }
    }
}

#[test]
fn openraft_stays_in_its_folder() {
    for path in all_sources() {
        let inside = path.starts_with(root().join("metadata/src/raft"))
            || path.starts_with(root().join("metadata/tests"));
        let names = fs::read_to_string(&path).expect("text").lines().any(|line| {
            let code = line.trim_start();
            !code.starts_with("//") && code.contains(concat!("openraft", "::"))
        });
        assert!(
            inside || !names,
            "{}: openraft's types stay inside metadata/src/raft",
            path.display()
        );
    }
}

#[test]
fn every_api_file_says_what_it_speaks() {
    let dir = root().join("broker/src/kafka/api");
    for api in skerry::kafka::api::ALL.iter().filter(|api| api.advertised) {
        let heading = format!("//! {:?} ({}), v{}", api.key, api.key as i16, api.min);
        let told = fs::read_dir(&dir)
            .expect("the API files")
            .flatten()
            .any(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| text.starts_with(&heading)));
        assert!(told, "no file in {} opens with {heading:?}", dir.display());
    }
}

#[test]
fn every_api_is_listed_once() {
    let mut keys: Vec<i16> = skerry::kafka::api::ALL.iter().map(|api| api.key as i16).collect();
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), count, "an API is in the table twice");
}
