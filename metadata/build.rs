//! Links the C++ runtime of RocksDB statically: one binary, no libstdc++.so to find, a megabyte less resident.

use std::path::PathBuf;

#[expect(
    clippy::disallowed_methods,
    reason = "a build script runs on the build machine, outside the seams"
)]
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // librocksdb-sys asks for a dynamic `stdc++`, and nothing in cargo can unsay it. The linker takes the first
    // libstdc++.so that it finds, and one that is a script may name the static archive.
    std::fs::write(out_dir.join("libstdc++.so"), "INPUT(-l:libstdc++.a)\n").expect("OUT_DIR is writable");
    println!("cargo::rustc-link-search=native={}", out_dir.display());
}
