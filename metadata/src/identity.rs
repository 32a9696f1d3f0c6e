//! Whose directory this is. Asked before RocksDB touches it.

use std::io;
use std::path::Path;

use skerry_env::Disk;
use skerry_env::disk::{read_file, replace_file};
use skerry_types::{BrokerId, Uuid, is_planted, reached};

use crate::errors::StartError;

/// The version of everything in the quorum's directory. A reader of an older version refuses the directory.
pub(crate) const FORMAT_VERSION: u32 = 1;

const FILE: &str = "identity";
const FILE_BYTES_MAX: u64 = 4_096;

/// Whose directory it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) node_id: BrokerId,
    /// Drawn when the directory was made: a node that lost its disk comes back with another one.
    pub(crate) directory: Uuid,
}

/// Claims a new directory for `node_id` under the identity `fresh`, or checks that it is this node's and of a version
/// that this program reads. Returns the directory's identity.
///
/// The claim is durable on return, the directory's own name included.
pub(crate) fn claim(disk: &dyn Disk, dir: &Path, node_id: BrokerId, fresh: Uuid) -> Result<Uuid, StartError> {
    let Some(found) = read(disk, dir)? else {
        let path = dir.join(FILE);
        create_dir(disk, dir).map_err(|source| StartError::Io {
            path: dir.to_owned(),
            source,
        })?;
        let text = format!(
            "version={FORMAT_VERSION}\nnode.id={node_id}\ndirectory.id={}\n",
            hex(fresh)
        );
        replace_file(disk, &path, text.as_bytes()).map_err(|source| StartError::Io { path, source })?;
        return Ok(fresh);
    };
    if found.node_id != node_id && !is_planted("disk-of-another-node-taken") {
        reached("disk-of-another-node-refused");
        return Err(StartError::OtherNode {
            dir: dir.to_owned(),
            owner: found.node_id,
            node_id,
        });
    }
    Ok(found.directory)
}

/// Reads a directory's identity; `None` where there is none.
pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Identity>, StartError> {
    let path = dir.join(FILE);
    let read = read_file(disk, &path, FILE_BYTES_MAX).map_err(|source| StartError::Io {
        path: path.clone(),
        source,
    })?;
    let Some(bytes) = read else { return Ok(None) };
    let damaged = |reason: &str| StartError::Damaged {
        path: path.clone(),
        reason: reason.to_owned(),
    };
    let text = String::from_utf8(bytes).map_err(|_| damaged("not text"))?;
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    // The version comes first: nothing else is sure to be there in a newer one.
    let found = value("version")
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| damaged("no version"))?;
    if found > FORMAT_VERSION {
        return Err(StartError::NewerVersion {
            dir: dir.to_owned(),
            found,
            supported: FORMAT_VERSION,
        });
    }
    let node_id = value("node.id")
        .and_then(|id| id.parse().ok())
        .map(BrokerId)
        .ok_or_else(|| damaged("no node.id"))?;
    let directory = value("directory.id")
        .and_then(from_hex)
        .ok_or_else(|| damaged("no directory.id"))?;
    Ok(Some(Identity { node_id, directory }))
}

fn hex(id: Uuid) -> String {
    format!("{:032x}", u128::from_be_bytes(id.0))
}

fn from_hex(text: &str) -> Option<Uuid> {
    let id = u128::from_str_radix(text, 16).ok()?;
    (text.len() == 32).then(|| Uuid(id.to_be_bytes()))
}

/// Makes a directory, and every name on the way to it durable.
fn create_dir(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    for ancestor in dir
        .ancestors()
        .filter(|ancestor| !ancestor.as_os_str().is_empty())
    {
        if disk.stat(ancestor)?.is_some() {
            break;
        }
        missing.push(ancestor);
    }
    disk.create_dir_all(dir)?;
    for made in missing {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        disk.sync_dir(parent.unwrap_or_else(|| Path::new(".")))?;
    }
    Ok(())
}
