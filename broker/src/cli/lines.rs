//! Lines of stdin, in the portions in which they come.

use std::io::{self, BufRead as _, BufReader, Stdin};

use skerry_env::Tasks;

/// What is read at once from a file or a pipe. A person's line comes alone.
const PORTION_BYTES: usize = 256 << 10;

/// Reads stdin where blocking harms nobody.
pub(super) struct Lines {
    tasks: Tasks,
    /// Away while a read is under way.
    reader: Option<BufReader<Stdin>>,
}

impl Lines {
    pub(super) fn new(tasks: &Tasks) -> Self {
        Self {
            tasks: tasks.clone(),
            reader: Some(BufReader::with_capacity(PORTION_BYTES, io::stdin())),
        }
    }

    /// Waits for a line, and returns it with all others that are here already, without their ends. Empty: the end.
    pub(super) async fn next(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let Some(mut reader) = self.reader.take() else {
            return Ok(Vec::new());
        };
        let (reader, lines) = self
            .tasks
            .run_blocking(move || {
                let lines = read_portion(&mut reader);
                (reader, lines)
            })
            .await;
        self.reader = Some(reader);
        lines
    }
}

fn read_portion(reader: &mut BufReader<Stdin>) -> io::Result<Vec<Vec<u8>>> {
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(lines);
        }
        if line.ends_with(b"\n") {
            line.pop();
            if line.ends_with(b"\r") {
                line.pop();
            }
        }
        lines.push(line);
        if !reader.buffer().contains(&b'\n') {
            return Ok(lines);
        }
    }
}
