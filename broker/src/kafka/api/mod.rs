//! One file for each API key. A file opens with the versions that it speaks and the KIPs behind them, and declares
//! its row of [`ALL`]; the answer of ApiVersions is computed from that table and from nothing else. An API that is
//! not whole is not in it.

pub mod api_versions;
pub mod fetch;
pub mod produce;

use super::dispatch::Api;

/// Every API that this broker answers.
pub static ALL: &[Api] = &[api_versions::API, fetch::API, produce::API];
