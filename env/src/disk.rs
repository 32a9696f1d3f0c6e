//! Files.
//!
//! The calls are synchronous: an append goes to the page cache and takes microseconds. What may block for long (a
//! sync, a cold read, a removal of large files) is called through [`crate::Tasks::run_blocking`].
//!
//! What survives a power cut, and what the simulator's disk therefore keeps: bytes of a file up to its last
//! successful `sync`, and a name only after a `sync_dir` of its directory. Everything later may be kept, lost or
//! torn, in any mixture.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A node's disk, shared.
pub type DynDisk = Arc<dyn Disk>;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; it must exist.
    ReadWrite,
    /// For reading and writing; made if it is missing.
    Create,
    /// For reading and writing; it must not exist.
    CreateNew,
}

/// What `list` and `stat` tell of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The last part of the path.
    pub name: String,
    /// A directory, not a file.
    pub is_dir: bool,
    /// A file's length in bytes; 0 for a directory.
    pub len: u64,
}

/// A file system's room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the whole file system.
    pub total_bytes: u64,
    /// Bytes that this process may still write.
    pub available_bytes: u64,
}

/// Held by one process for a directory; released on drop, or by the end of the process.
pub trait DirLock: Send + Sync {}

/// A node's files and directories.
pub trait Disk: Send + Sync {
    /// Opens a file.
    ///
    /// # Errors
    /// The system's: `NotFound`, `AlreadyExists` (for `CreateNew`), `StorageFull`, …
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Renames over whatever has the new name. Durable after `sync_dir` of the directory.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file. Durable after `sync_dir` of the directory.
    ///
    /// # Errors
    /// The system's; `NotFound` where there is none.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and everything in it.
    ///
    /// # Errors
    /// The system's.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory and its parents where they are missing. Durable after `sync_dir` of each parent.
    ///
    /// # Errors
    /// The system's.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// What a directory holds, sorted by name.
    ///
    /// # Errors
    /// The system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// What a path is, or `None` where there is nothing.
    ///
    /// # Errors
    /// The system's, but for `NotFound`.
    fn stat(&self, path: &Path) -> io::Result<Option<Entry>>;
    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// The system's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Makes everything written to the file system of `path` durable, in one go (`syncfs`): cheaper than many
    /// `sync` calls where many files wait.
    ///
    /// # Errors
    /// The system's. As after a failed `sync`, nothing is known of any file.
    fn sync_filesystem(&self, path: &Path) -> io::Result<()>;
    /// The room on the file system of `path`.
    ///
    /// # Errors
    /// The system's.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Takes the exclusive lock of a directory (its file `.lock`).
    ///
    /// # Errors
    /// `WouldBlock` when another process holds it.
    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn DirLock>>;
    /// Where a library that keeps its own files (RocksDB) finds `path` in the operating system's file system.
    fn external_path(&self, path: &Path) -> PathBuf;
}

/// An open file. Reads and writes name their position: there is no cursor.
pub trait File: Send + Sync {
    /// Reads up to `buf.len()` bytes at `position`; 0 at the end of the file.
    ///
    /// # Errors
    /// The system's.
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize>;
    /// As `read_at`, but `None` where it would have to wait for the device.
    ///
    /// # Errors
    /// The system's.
    fn read_cached_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>>;
    /// Writes all of `bufs`, one after the other, at `position`.
    ///
    /// # Errors
    /// The system's. Some of the bytes may have been written.
    fn write_at(&self, bufs: &[io::IoSlice<'_>], position: u64) -> io::Result<()>;
    /// Makes the bytes and the length durable (`fdatasync`).
    ///
    /// # Errors
    /// The system's. The bytes written since the last success may be lost even if a later call succeeds: an error is
    /// final for this file.
    fn sync(&self) -> io::Result<()>;
    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// The system's.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The length in bytes.
    ///
    /// # Errors
    /// The system's.
    fn len(&self) -> io::Result<u64>;
    /// True for a file of no bytes.
    ///
    /// # Errors
    /// The system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// Reads exactly `buf.len()` bytes at `position`.
///
/// # Errors
/// `UnexpectedEof` where the file is shorter; otherwise the system's.
pub fn read_exact_at(file: &dyn File, mut buf: &mut [u8], mut position: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buf = &mut buf[read..];
                position += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The whole of a small file, or `None` where there is none.
///
/// # Errors
/// The system's; `InvalidData` where it is longer than `limit_bytes`.
pub fn read_file(disk: &dyn Disk, path: &Path, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    if len > limit_bytes {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{}: {len} bytes, at most {limit_bytes} are expected",
                path.display()
            ),
        ));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    read_exact_at(&*file, &mut bytes, 0)?;
    Ok(Some(bytes))
}

/// Replaces a small file as a whole: after a crash it holds the old bytes or the new, never a mixture.
///
/// Writes `path` + `.tmp`, syncs it, renames it, and syncs the directory: without the last step the old name may
/// come back after a power cut.
///
/// # Errors
/// The system's.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let file = disk.open(&temporary, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_at(&[io::IoSlice::new(bytes)], 0)?;
    file.sync()?;
    disk.rename(&temporary, path)?;
    disk.sync_dir(path.parent().unwrap_or_else(|| Path::new(".")))
}
