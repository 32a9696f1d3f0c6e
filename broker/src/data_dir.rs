//! The data directory and whose it is.

use std::io;
use std::path::{Path, PathBuf};

use skerry_env::Env;
use skerry_env::disk::{DirLock, read_file, replace_file};
use skerry_types::{BrokerId, Uuid, is_planted, reached};

use crate::node::StartError;

/// Kafka's name for the file that says whose directory it is.
const META_PROPERTIES: &str = "meta.properties";
/// Version of the directory's layout. A larger one was written by a newer program.
pub(crate) const LAYOUT_VERSION: u32 = 1;
/// Where partitions live, under the data directory.
pub(crate) const LOG_DIR: &str = "log";
/// Where the metadata quorum lives, under the data directory.
pub(crate) const METADATA_DIR: &str = "metadata";

/// What must be free for a start: RocksDB begins new files, and ends the process where it cannot write them.
const START_BYTES: u64 = 1024 * 1024;

/// What a data directory says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The cluster that it belongs to.
    pub(crate) cluster_id: Uuid,
    /// The directory's own: another one stands for other copies of the partitions, or for none.
    pub(crate) directory_id: Uuid,
}

/// The data directory and whose it is.
pub(crate) struct DataDir {
    pub(crate) env: Env,
    pub(crate) dir: PathBuf,
}

impl DataDir {
    /// What the directory says of itself; `None` for a new one. Changes nothing.
    ///
    /// # Errors
    /// It is another node's, a newer program's, damaged, or has lost its metadata.
    pub(crate) fn identity(&self, node_id: BrokerId) -> Result<Option<Identity>, StartError> {
        let path = self.dir.join(META_PROPERTIES);
        let disk = &*self.env.disk;
        let bytes = read_file(disk, &path, 64 * 1024).map_err(|source| self.disk(&path, source))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let damaged = |why: &str| StartError::Identity {
            path: path.clone(),
            why: why.to_owned(),
        };
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(str::trim)
        };
        let version: u32 = value("version")
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| damaged("it has no version"))?;
        if version > LAYOUT_VERSION {
            return Err(StartError::NewerVersion {
                dir: self.dir.clone(),
                found: version,
            });
        }
        let owner: i32 = value("node.id")
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| damaged("it has no node.id"))?;
        if owner != node_id.get() && !is_planted("disk-of-another-node-taken") {
            reached("disk-of-another-node-refused");
            return Err(StartError::WrongNode {
                dir: self.dir.clone(),
                found: owner,
                configured: node_id.get(),
            });
        }
        let id = |key: &str| {
            value(key)
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| damaged(&format!("it has no {key}")))
        };
        let identity = Identity {
            cluster_id: id("cluster.id")?,
            directory_id: id("directory.id")?,
        };
        let metadata = self.dir.join(METADATA_DIR);
        if disk
            .stat(&metadata)
            .map_err(|source| self.disk(&metadata, source))?
            .is_none()
        {
            return Err(StartError::MetadataMissing {
                dir: self.dir.clone(),
            });
        }
        Ok(Some(identity))
    }

    /// Refuses to start on a full disk. Changes nothing.
    ///
    /// # Errors
    /// Less than [`START_BYTES`] are free, or the disk cannot tell.
    pub(crate) fn has_room(&self) -> Result<(), StartError> {
        let disk = &*self.env.disk;
        let mut existing = &*self.dir;
        while disk
            .stat(existing)
            .map_err(|source| self.disk(existing, source))?
            .is_none()
        {
            existing = match existing.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent,
                _ => Path::new("."),
            };
        }
        let space = disk
            .space(existing)
            .map_err(|source| self.disk(existing, source))?;
        if space.available_bytes < START_BYTES {
            return Err(self.disk(&self.dir, io::ErrorKind::StorageFull.into()));
        }
        Ok(())
    }

    /// Makes the directory, durably, and takes its lock.
    ///
    /// # Errors
    /// Another process has it, or the disk refuses.
    pub(crate) fn claim(&self) -> Result<Box<dyn DirLock>, StartError> {
        let disk = &*self.env.disk;
        let failed = |source| self.disk(&self.dir, source);
        if disk.stat(&self.dir).map_err(failed)?.is_none() {
            disk.create_dir_all(&self.dir).map_err(failed)?;
            for ancestor in self.dir.ancestors().skip(1) {
                let ancestor = if ancestor.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    ancestor
                };
                // Directories above the first that we made may not be ours to sync: what matters is our own names.
                if disk.sync_dir(ancestor).is_err() {
                    break;
                }
            }
        }
        disk.lock_dir(&self.dir).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                StartError::InUse {
                    dir: self.dir.clone(),
                }
            } else {
                self.disk(&self.dir, source)
            }
        })
    }

    /// Writes whose directory it is, once the cluster has a name.
    ///
    /// # Errors
    /// The disk refuses.
    pub(crate) fn sign(&self, node_id: BrokerId, identity: Identity) -> Result<(), StartError> {
        let path = self.dir.join(META_PROPERTIES);
        let Identity {
            cluster_id,
            directory_id,
        } = identity;
        let text = format!(
            "version={LAYOUT_VERSION}\nnode.id={node_id}\ncluster.id={cluster_id}\ndirectory.id={directory_id}\n"
        );
        replace_file(&*self.env.disk, &path, text.as_bytes()).map_err(|source| self.disk(&path, source))
    }

    fn disk(&self, path: &Path, source: io::Error) -> StartError {
        StartError::Disk {
            path: path.to_owned(),
            source,
        }
    }
}
