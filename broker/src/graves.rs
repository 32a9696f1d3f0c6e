//! Folders of deleted partitions, removed in the background.
//!
//! A deletion is answered when the folders have lost their names durably. Removing their files takes milliseconds for
//! each, and nobody waits for it: one task removes one folder at a time, and what it does not come to is found by its
//! name at the next start. Kafka does the same (`LogManager.asyncDelete`).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use skerry_env::{Env, TaskHandle};

/// Folders that are waiting to be removed, and the task that does it while there are some.
pub struct Graves {
    env: Env,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    folders: VecDeque<PathBuf>,
    /// Looks for more until there are none; the next folder starts another one.
    task: Option<TaskHandle>,
    /// A task is looking.
    digging: bool,
}

impl Graves {
    /// None yet.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self {
            env,
            waiting: Arc::default(),
        }
    }

    /// Has `folders` removed, each with all that is in it.
    pub fn add(&self, folders: impl IntoIterator<Item = PathBuf>) {
        let mut waiting = self.waiting.lock();
        waiting.folders.extend(folders);
        if !waiting.folders.is_empty() && !waiting.digging {
            waiting.digging = true;
            let digging = dig(self.env.clone(), self.waiting.clone());
            waiting.task = Some(self.env.tasks.spawn("graves", digging));
        }
    }

    /// Leaves what is not removed yet to the next start; nothing is being removed when this returns.
    pub async fn stop(&self) {
        let task = {
            let mut waiting = self.waiting.lock();
            waiting.folders.clear();
            waiting.task.take()
        };
        if let Some(task) = task {
            task.join().await;
        }
    }
}

async fn dig(env: Env, waiting: Arc<Mutex<Waiting>>) {
    loop {
        let folder = {
            let mut waiting = waiting.lock();
            let Some(folder) = waiting.folders.pop_front() else {
                waiting.digging = false;
                return;
            };
            folder
        };
        let (disk, what) = (env.disk.clone(), folder.display().to_string());
        let removed = env.tasks.run_blocking(move || disk.remove_dir_all(&folder)).await;
        if let Err(error) = removed {
            tracing::warn!(folder = what, %error, "cannot remove a deleted partition's folder; the next start will try again");
        }
    }
}
