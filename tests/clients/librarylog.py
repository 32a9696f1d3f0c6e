"""What the client library says of itself, a file for each client: a client that stands still can be read afterwards.

librdkafka writes to the process's stderr, from threads of its own, so that a client that hangs is heard as well (a `logger`
is only told within poll). Each line begins `%7|seconds|EVENT|client.id#consumer-3| `. A process of its own sorts them: a
thread of this one could wait for the interpreter's lock, which waits for the library, which waits for a full pipe.
"""
import os
import subprocess
import sys
from typing import Any, Dict, IO

# What decides where a client goes: connections, the brokers that it was told, its group, each request and answer.
SETTINGS = {"debug": "broker,metadata,cgrp,eos,protocol", "log_level": 7}
# Of each client the last 8 to 16 MiB are kept: a minute and more of the worst.
FILE_BYTES_MAX = 8 << 20


class LibraryLogs:
    """Takes the process's stderr, and has it sorted into `directory`/NAME.log; what is no client's goes where it went before,
    and so does Python's own."""

    def __init__(self, directory: str):
        os.makedirs(directory, exist_ok=True)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        self.sorter = subprocess.Popen([sys.executable, os.path.realpath(__file__), directory], stdin=subprocess.PIPE)  # pylint: disable=consider-using-with
        assert self.sorter.stdin
        os.dup2(self.sorter.stdin.fileno(), 2)
        self.sorter.stdin.close()

    def close(self) -> None:
        """All that was said until now is in the files; what is said later is not kept."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        self.sorter.wait(10)


def sort(lines: IO[bytes], directory: str) -> None:
    files: Dict[str, Any] = {}
    for line in lines:
        fields = line.split(b"|", 4)
        if not line.startswith(b"%") or len(fields) < 5 or b"#" not in fields[3]:
            os.write(2, line)
            continue
        name = os.path.basename(fields[3].split(b"#")[0].decode(errors="replace"))
        path = os.path.join(directory, f"{name}.log")
        file = files.get(name)
        if file and file.tell() > FILE_BYTES_MAX:
            file.close()
            os.replace(path, f"{path}.before")
            file = None
        if not file:
            file = files[name] = open(path, "wb")  # pylint: disable=consider-using-with
        file.write(line)


if __name__ == "__main__":
    sort(sys.stdin.buffer, sys.argv[1])
