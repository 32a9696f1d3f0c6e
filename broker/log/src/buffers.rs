//! Buffers of large reads, used again: a fresh one of a megabyte must be zeroed first, which costs a tenth of the read.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// What a consumer's fetch of Kafka's default size needs (`max.partition.fetch.bytes`, and room to find its begin).
const BUFFER_BYTES: usize = 1024 * 1024 + 16 * 1024;
/// A smaller read would hold much more memory than it has bytes.
const READ_BYTES_MIN: usize = BUFFER_BYTES / 2;
/// Buffers that wait to be used again.
const WAITING_MAX: usize = 4;

/// Buffers that no reader holds; all of them as long as the longest read that they serve.
#[derive(Default)]
pub(crate) struct BufferPool {
    waiting: Mutex<Vec<Box<[u8]>>>,
}

impl BufferPool {
    /// Fills a buffer of `bytes` bytes by `read`, which says how many it has read; gives those. The buffer comes back
    /// when the last part of them is dropped.
    pub(crate) fn fill<E>(
        self: &Arc<Self>,
        bytes: usize,
        read: impl FnOnce(&mut [u8]) -> Result<Option<usize>, E>,
    ) -> Result<Option<Bytes>, E> {
        if !(READ_BYTES_MIN..=BUFFER_BYTES).contains(&bytes) {
            let mut buffer = vec![0; bytes];
            return Ok(read(&mut buffer)?.map(|len| {
                buffer.truncate(len);
                buffer.into()
            }));
        }
        let waiting = self.waiting.lock().pop();
        let mut pooled = Pooled {
            buffer: waiting.unwrap_or_else(|| vec![0; BUFFER_BYTES].into()),
            len: 0,
            pool: self.clone(),
        };
        let Some(len) = read(&mut pooled.buffer[..bytes])? else {
            return Ok(None);
        };
        pooled.len = len;
        Ok(Some(Bytes::from_owner(pooled)))
    }
}

struct Pooled {
    buffer: Box<[u8]>,
    /// What was read.
    len: usize,
    pool: Arc<BufferPool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let mut waiting = self.pool.waiting.lock();
        if waiting.len() < WAITING_MAX {
            waiting.push(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn read(pool: &Arc<BufferPool>, bytes: usize, with: u8, len: usize) -> Bytes {
        let filled = pool.fill(bytes, |buffer| {
            assert_eq!(buffer.len(), bytes);
            buffer[..len].fill(with);
            Ok::<_, Infallible>(Some(len))
        });
        filled.unwrap().unwrap()
    }

    #[test]
    fn a_buffer_comes_back_with_the_last_part_of_its_bytes() {
        let pool = Arc::new(BufferPool::default());
        let first = read(&pool, BUFFER_BYTES, 1, 1000);
        let part = first.slice(10..20);
        drop(first);
        assert_eq!(pool.waiting.lock().len(), 0, "a part of it is still read");
        let second = read(&pool, BUFFER_BYTES, 2, 1000);
        assert_eq!((&part[..], &second[..]), (&[1; 10][..], &[2; 1000][..]));
        drop((part, second));
        assert_eq!(pool.waiting.lock().len(), 2);
        let third = read(&pool, READ_BYTES_MIN, 3, 5);
        assert_eq!(
            &third[..],
            &[3; 5],
            "nothing of the bytes before is seen behind what was read"
        );
        assert_eq!(pool.waiting.lock().len(), 1);
    }

    #[test]
    fn what_waits_is_bounded_and_small_reads_take_none_of_it() {
        let pool = Arc::new(BufferPool::default());
        let many: Vec<Bytes> = (0..10).map(|with| read(&pool, BUFFER_BYTES, with, 8)).collect();
        drop(many);
        assert_eq!(pool.waiting.lock().len(), WAITING_MAX);
        let (small, huge) = (
            read(&pool, READ_BYTES_MIN - 1, 1, 7),
            read(&pool, BUFFER_BYTES + 1, 1, 9),
        );
        assert_eq!((small.len(), huge.len()), (7, 9));
        assert_eq!(pool.waiting.lock().len(), WAITING_MAX);
        let nothing = pool.fill(BUFFER_BYTES, |_| Ok::<_, Infallible>(None));
        assert!(nothing.unwrap().is_none());
        assert_eq!(pool.waiting.lock().len(), WAITING_MAX, "given back at once");
    }
}
