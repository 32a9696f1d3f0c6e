//! Going through the batches of a `.log` file one by one, with every check that does not need other files.

use std::io;

use bytes::{Bytes, BytesMut};
use skerry_env::disk::File;
use skerry_types::{LeaderEpoch, Offset, is_planted, sometimes};

use crate::batch::{Batch, BatchHeader, HEADER_BYTES, MAGIC};

const CHUNK_BYTES: usize = 256 * 1024;

/// Where a walk ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WalkEnd {
    /// One past the last good batch.
    pub(crate) position: u64,
    /// The offset after it.
    pub(crate) next_offset: Offset,
    /// Why the walk ended before the file did.
    pub(crate) failure: Option<String>,
}

/// Walks `file` from `position` to `len`; batches must lie within `base..`, each where the last one ended.
pub(crate) struct Walk<'a> {
    pub(crate) file: &'a dyn File,
    pub(crate) base: Offset,
    pub(crate) position: u64,
    pub(crate) len: u64,
    pub(crate) expected: Offset,
    /// Compaction may have removed offsets up to here. Elsewhere a gap is damage: the sum does not cover the base
    /// offset.
    pub(crate) gaps_until: Offset,
}

impl Walk<'_> {
    /// Shows each good batch with its position to `visit`, up to the first bad one. What looks bad is read once more: a
    /// bit may have turned over on its way from the device, and what is cut for that is lost.
    pub(crate) fn run(mut self, mut visit: impl FnMut(&Batch, u64) -> io::Result<()>) -> io::Result<WalkEnd> {
        let mut buffer = Bytes::new();
        let mut epoch = LeaderEpoch::UNKNOWN;
        let mut is_second_look = false;
        while self.position < self.len {
            match self.next(&mut buffer, epoch)? {
                Ok(batch) => {
                    visit(&batch, self.position)?;
                    epoch = batch.header.leader_epoch();
                    self.position += batch.bytes.len() as u64;
                    self.expected = batch.header.next_offset();
                    sometimes("read-right-the-second-time", is_second_look);
                    is_second_look = false;
                }
                Err(why) if is_second_look || is_planted("misread-taken-for-a-tear") => {
                    return Ok(self.end(Some(why)));
                }
                Err(_) => {
                    buffer.clear();
                    is_second_look = true;
                }
            }
        }
        Ok(self.end(None))
    }

    /// The batch at `position`, or what is wrong with it.
    fn next(&self, buffer: &mut Bytes, epoch: LeaderEpoch) -> io::Result<Result<Batch, String>> {
        if self.len - self.position < HEADER_BYTES as u64 {
            return Ok(Err("the file ends within the head of a batch".to_owned()));
        }
        if buffer.len() < HEADER_BYTES {
            *buffer = self.read(CHUNK_BYTES)?;
        }
        let Some(header) = BatchHeader::read(buffer) else {
            return Ok(Err("the file is shorter than it was".to_owned()));
        };
        let size = match plausible_size(&header, self.base, self.expected, self.len - self.position) {
            Ok(size) => size,
            Err(why) => return Ok(Err(why)),
        };
        if buffer.len() < size {
            *buffer = self.read(size.max(CHUNK_BYTES))?;
            if buffer.len() < size {
                return Ok(Err("the file is shorter than it was".to_owned()));
            }
        }
        let batch = Batch {
            header,
            bytes: buffer.split_to(size),
        };
        Ok(self.check(&batch, epoch).map(|()| batch))
    }

    fn check(&self, batch: &Batch, epoch: LeaderEpoch) -> Result<(), String> {
        let header = &batch.header;
        if !batch.crc_is_good() {
            return Err("a batch's checksum does not fit its bytes".to_owned());
        }
        if header.base_offset() > self.expected && header.base_offset() > self.gaps_until {
            return Err(format!(
                "offset {} follows {}",
                header.base_offset(),
                self.expected
            ));
        }
        if header.leader_epoch() < epoch {
            return Err(format!("leader epoch {} follows {epoch}", header.leader_epoch()));
        }
        Ok(())
    }

    fn read(&self, want: usize) -> io::Result<Bytes> {
        let want = want.min(usize::try_from(self.len - self.position).unwrap_or(usize::MAX));
        let mut bytes = BytesMut::zeroed(want);
        let read = read_up_to(self.file, &mut bytes, self.position)?;
        bytes.truncate(read);
        Ok(bytes.freeze())
    }

    fn end(&self, failure: Option<String>) -> WalkEnd {
        WalkEnd {
            position: self.position,
            next_offset: self.expected,
            failure,
        }
    }
}

/// The size of a batch whose head may be any bytes, or what is wrong with it.
pub(crate) fn plausible_size(
    header: &BatchHeader,
    base: Offset,
    expected: Offset,
    room: u64,
) -> Result<usize, String> {
    if header.magic() != MAGIC {
        return Err(format!("magic {} is not 2", header.magic()));
    }
    let Some(size) = header.size_bytes() else {
        return Err(format!("a batch of length {}", header.length()));
    };
    if size as u64 > room {
        return Err(format!("a batch of {size} bytes where the file has {room}"));
    }
    let (first, delta) = (header.base_offset(), header.last_offset_delta());
    if first < expected || first < base {
        return Err(format!("offset {first} after {expected}"));
    }
    if delta < 0
        || first
            .get()
            .checked_add(i64::from(delta))
            .is_none_or(|last| last - base.get() > i64::from(i32::MAX))
    {
        return Err(format!("offsets {first} + {delta} do not fit segment {base}"));
    }
    Ok(size)
}

/// Reads until `buf` is full or the file ends.
pub(crate) fn read_up_to(file: &dyn File, buf: &mut [u8], position: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buf.len() {
        match file.read_at(&mut buf[read..], position + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

/// True where an intact batch begins anywhere in `file` from `start` on: what lies there is more than a torn write.
pub(crate) fn has_batch_beyond(file: &dyn File, base: Offset, mut start: u64, len: u64) -> io::Result<bool> {
    let mut chunk = vec![0; CHUNK_BYTES];
    while len.saturating_sub(start) >= HEADER_BYTES as u64 {
        let want = chunk
            .len()
            .min(usize::try_from(len - start).unwrap_or(usize::MAX));
        let read = read_up_to(file, &mut chunk[..want], start)?;
        if read < HEADER_BYTES {
            return Ok(false);
        }
        for at in 0..=read - HEADER_BYTES {
            let Some(header) = BatchHeader::read(&chunk[at..read]) else {
                break;
            };
            let begin = start + at as u64;
            if header.magic() != MAGIC || header.record_count() < 0 {
                continue;
            }
            let Ok(size) = plausible_size(&header, base, base, len - begin) else {
                continue;
            };
            let mut bytes = BytesMut::zeroed(size);
            if read_up_to(file, &mut bytes, begin)? == size
                && (Batch {
                    header,
                    bytes: bytes.freeze(),
                })
                .crc_is_good()
            {
                return Ok(true);
            }
        }
        start += (read - HEADER_BYTES + 1) as u64;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use skerry_types::WallMs;

    use crate::batch::BatchBuilder;

    /// A file whose first `misreads` reads return a wrong bit.
    struct Misread {
        bytes: Vec<u8>,
        misreads: AtomicU32,
    }

    impl File for Misread {
        fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
            let from = usize::try_from(position).unwrap().min(self.bytes.len());
            let read = buf.len().min(self.bytes.len() - from);
            buf[..read].copy_from_slice(&self.bytes[from..from + read]);
            let left = self.misreads.load(Ordering::Relaxed);
            if left > 0 && read > 0 {
                self.misreads.store(left - 1, Ordering::Relaxed);
                buf[read - 1] ^= 1;
            }
            Ok(read)
        }

        fn read_cached_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
            self.read_at(buf, position).map(Some)
        }

        fn write_at(&self, _: &[io::IoSlice<'_>], _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn len(&self) -> io::Result<u64> {
            Ok(self.bytes.len() as u64)
        }
    }

    fn walk_misread(misreads: u32) -> WalkEnd {
        let mut bytes = Vec::new();
        for base in 0..3 {
            let mut builder = BatchBuilder::default().at(Offset(base), LeaderEpoch(1));
            builder.push(WallMs(1), None, Some(b"value"), &[]);
            bytes.extend_from_slice(&builder.build());
        }
        let file = Misread {
            bytes,
            misreads: AtomicU32::new(misreads),
        };
        let walk = Walk {
            file: &file,
            base: Offset::ZERO,
            position: 0,
            len: file.len().unwrap(),
            expected: Offset::ZERO,
            gaps_until: Offset::ZERO,
        };
        walk.run(|_, _| Ok(())).unwrap()
    }

    #[test]
    fn what_was_misread_once_is_not_damaged() {
        for misreads in 0..=1 {
            let end = walk_misread(misreads);
            assert_eq!((end.next_offset, end.failure), (Offset(3), None));
        }
        let end = walk_misread(9);
        assert_eq!(end.next_offset, Offset(2));
        assert!(end.failure.unwrap().contains("checksum"));
    }
}
