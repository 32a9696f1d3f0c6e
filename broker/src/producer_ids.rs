//! Producer ids: unique in the cluster for ever, taken from the quorum a block at a time.

use parking_lot::Mutex;
use skerry_metadata_state::{BrokerGuard, Command, Outcome, PRODUCER_ID_BLOCK};
use skerry_types::{ProducerId, buggify};

use crate::broker::Broker;
use crate::topics::{self, ChangeError};

/// Hands out producer ids. What is left of a block is lost with the process: ids are many.
#[derive(Default)]
pub struct ProducerIds {
    left: Mutex<Block>,
    /// One block is asked for at a time; who comes meanwhile waits for it.
    asking: tokio::sync::Mutex<()>,
}

/// Ids that are ours.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    next: i64,
    end: i64,
}

impl Block {
    const fn take(&mut self) -> Option<ProducerId> {
        if self.next >= self.end {
            return None;
        }
        let id = ProducerId(self.next);
        self.next += 1;
        Some(id)
    }
}

impl ProducerIds {
    /// An id that nobody has and nobody will get.
    ///
    /// # Errors
    /// The quorum gives no block.
    pub async fn next(&self, broker: &Broker) -> Result<ProducerId, ChangeError> {
        loop {
            if let Some(id) = self.left.lock().take() {
                return Ok(id);
            }
            let _one_at_a_time = self.asking.lock().await;
            let empty = {
                let left = self.left.lock();
                left.next >= left.end
            };
            if empty {
                let block = ask(broker).await?;
                *self.left.lock() = block;
            }
        }
    }
}

async fn ask(broker: &Broker) -> Result<Block, ChangeError> {
    let epoch = broker
        .epoch()
        .ok_or_else(|| ChangeError::Unavailable("this broker is not registered yet".to_owned()))?;
    let guard = BrokerGuard {
        broker: broker.id(),
        epoch,
    };
    match topics::change(broker, Command::AllocateProducerIds(guard)).await? {
        Outcome::ProducerIds { first } => Ok(Block {
            next: first.get(),
            end: match buggify("block-of-one-producer-id", 2) {
                true => first.get() + 1,
                false => first.get() + PRODUCER_ID_BLOCK,
            },
        }),
        outcome => Err(ChangeError::Unavailable(format!(
            "the quorum answered {outcome:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_handed_out_once() {
        let mut block = Block {
            next: 1000,
            end: 1002,
        };
        assert_eq!(block.take(), Some(ProducerId(1000)));
        assert_eq!(block.take(), Some(ProducerId(1001)));
        assert_eq!(block.take(), None);
        assert_eq!(Block::default().take(), None);
    }
}
