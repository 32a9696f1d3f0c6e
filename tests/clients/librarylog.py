"""What the client library says of itself, a file for each client: a client that stands still can be read afterwards.

librdkafka writes to the process's stderr, from threads of its own, so that a client that hangs is heard as well (a `logger`
is only told within poll). Each line begins `%7|seconds|EVENT|client.id#consumer-3| `.
"""
import os
import sys
import threading
from typing import Any, Dict

# What decides where a client goes: connections, the brokers that it was told, its group, each request and answer.
SETTINGS = {"debug": "broker,metadata,cgrp,eos,protocol", "log_level": 7}
# Of each client the last 8 to 16 MiB are kept: about ten minutes.
FILE_BYTES_MAX = 8 << 20


class LibraryLogs:
    """Takes the process's stderr, and sorts it into `directory`/NAME.log; what is no client's goes where it went before, and
    so does Python's own."""

    def __init__(self, directory: str):
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        self.before = os.dup(2)
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        self.read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        os.close(write_end)
        self.files: Dict[str, Any] = {}
        self.thread = threading.Thread(target=self._sort, name="library-logs", daemon=True)
        self.thread.start()

    def close(self) -> None:
        """All that was said until now is in the files; what is said later is not kept."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        self.thread.join(10)

    def _sort(self) -> None:
        rest = b""
        while True:
            chunk = os.read(self.read_end, 1 << 16)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._keep(line + b"\n")
            for file in self.files.values():
                file.flush()
            if not chunk:
                return

    def _keep(self, line: bytes) -> None:
        fields = line.split(b"|", 4)
        if not line.startswith(b"%") or len(fields) < 5 or b"#" not in fields[3]:
            os.write(self.before, line)
            return
        name = os.path.basename(fields[3].split(b"#")[0].decode(errors="replace"))
        path = os.path.join(self.directory, f"{name}.log")
        file = self.files.get(name)
        if file and file.tell() > FILE_BYTES_MAX:
            file.close()
            os.replace(path, f"{path}.before")
            file = None
        if not file:
            file = self.files[name] = open(path, "wb")  # pylint: disable=consider-using-with
        file.write(line)
