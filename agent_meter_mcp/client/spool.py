"""What could not be sent, on disk until it can be.

A folder of files of JSON lines, one file per writer, which holds a lock on it while it is open: a file that
can be locked belongs to nobody any more, and whoever drains it first may. Each line ends with a line break
that is on the disk before anything is acknowledged; a line without one was being written when its process
died. Sending a line twice is harmless, because it carries its id. All methods block; any thread may call
them.

What a meter has refused for good is put aside in `refused.txt` there, for a person to look at: it happened.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from agent_meter_mcp.core.errors import Overloaded, StoreError, StoreReadOnly
from agent_meter_mcp.runtime import new_id, system_clock_us

if TYPE_CHECKING:
    import fcntl
    from collections.abc import Generator, Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO
else:
    try:
        import fcntl
    except ImportError:  # Windows: there an open file cannot be removed, which is guard enough
        fcntl = None

FILE_BYTES_MAX = 1024 * 1024
"""A file that has grown to this is closed: so a long outage is drained, and given back, piece by piece."""
LINE_BYTES_MAX = 1024 * 1024
"""Many times what a line can have that was written here. One that has more is read in pieces."""
REFUSED = "refused.txt"
REFUSED_BYTES_MAX = 8 * 1024 * 1024
_SUFFIX = ".jsonl"
_log = logging.getLogger(__name__)


class Spool:
    """At most `bytes_max` in `folder`, whoever wrote them."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._file: int | None = None
        self._file_bytes = 0
        self._process = 0
        """That has made it."""
        self._unusable: set[Path] = set()
        """What lies there and cannot be read: it is said once, and holds up nothing."""

    def append(self, lines: Sequence[str]) -> None:
        """On return they are on the disk, all of them.

        Raises:
            Overloaded: the spool is full. StoreError: the disk cannot be used. Nothing was kept then.
        """
        data = "".join(f"{line}\n" for line in lines).encode()
        with self._lock:
            if (held := self._bytes()) + len(data) > self._bytes_max:
                raise Overloaded(
                    f"the spool {self._folder} is full ({held} of {self._bytes_max} bytes), and the meter "
                    f"cannot be reached: {len(lines)} entries were not kept."
                )
            self._keep(data)

    def put_back(self, lines: Sequence[str]) -> None:
        """They come last from now on. There is room: they were there already. Raises StoreError."""
        with self._lock:
            self._keep("".join(f"{line}\n" for line in lines).encode())

    @property
    def refused(self) -> Path:
        """The file of what was put aside."""
        return self._folder / REFUSED

    def put_aside(self, lines: Sequence[str]) -> None:
        """Keeps them on the disk, where nobody sends them. Raises StoreError, also when it is full."""
        try:
            with open(self.refused, "ab", opener=_for_its_owner) as file:
                if file.tell() >= REFUSED_BYTES_MAX:
                    raise StoreError(
                        f"{self.refused} is full ({REFUSED_BYTES_MAX} bytes): look at it, and remove it."
                    )
                file.write("".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(f"{self.refused} cannot be written ({error.strerror}).") from error

    def waiting(self) -> bool:
        """Whether there is something to send. Raises StoreError when the folder cannot be read."""
        with self._lock:
            return self._bytes() > 0

    def files(self) -> Generator[SpoolFile]:
        """Each file that nobody writes, oldest first; our own is closed for it."""
        with self._lock:
            self._close_file()
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if (file := self._opened(path)) is not None:
                with file:
                    if _try_lock(file.fileno()):
                        yield SpoolFile(path, file)

    def close(self) -> None:
        with self._lock:
            self._close_file()

    def _opened(self, path: Path) -> BinaryIO | None:
        flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # it may be a pipe
        try:
            descriptor = os.open(path, flags)
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return os.fdopen(descriptor, "rb")
            os.close(descriptor)
            why = "it is no file"
        except FileNotFoundError:  # drained by another process meanwhile
            return None
        except OSError as error:
            why = str(error.strerror)
        if path not in self._unusable:
            self._unusable.add(path)
            _log.error("%s cannot be read (%s), so what is in it is not sent: mend or remove it", path, why)
        return None

    def _bytes(self) -> int:
        total = 0
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if entry.name.endswith(_SUFFIX) and self._folder / entry.name not in self._unusable:
                        with suppress(FileNotFoundError):  # another process has just drained it
                            total += entry.stat().st_size
        except FileNotFoundError:  # no folder yet
            pass
        except OSError as error:
            raise StoreError(f"the spool {self._folder} cannot be read ({error.strerror}).") from error
        return total

    def _keep(self, data: bytes) -> None:
        try:
            self._write(data)
        except OSError as error:
            raise StoreError(f"the spool {self._folder} cannot be written ({error.strerror}).") from error

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._new_file()
            self._process = os.getpid()
            self._file_bytes = 0
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._file_bytes)  # what was written of it must not be sent later
            raise
        self._file_bytes += len(data)
        if self._file_bytes >= FILE_BYTES_MAX:
            self._close_file()

    def _new_file(self) -> int:
        """It is locked before it has its name, so that nobody drains it in between, where there are locks."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreReadOnly(
                f"{self._folder} cannot be made ({error.strerror}). Name another folder."
            ) from error
        name = new_id(system_clock_us())
        path = self._folder / f"{name}.jsonl"
        hidden = path if fcntl is None else path.with_suffix(".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
        descriptor = os.open(hidden, flags, 0o600)
        try:
            _try_lock(descriptor)
            if hidden != path:
                os.rename(hidden, path)
            _sync_folder(self._folder)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def _close_file(self) -> None:
        if self._file is not None:
            if self._process == os.getpid():
                _unlock(self._file)  # a process that was forked has it open too, and would keep it locked
            os.close(self._file)
            self._file = None


def entries_below(folder: Path) -> dict[Path, int]:
    """How many entries wait in each spool whose folder is in this one. Raises OSError."""
    entries: dict[Path, int] = {}
    for path in folder.glob("*/*.jsonl"):
        with suppress(FileNotFoundError):  # somebody has just drained it
            entries[path.parent] = entries.get(path.parent, 0) + path.read_bytes().count(b"\n")
    return {spool: count for spool, count in entries.items() if count}


class SpoolFile:
    """A file that is being drained."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file

    def lines(self) -> Iterator[bytes]:
        """Without their ends. Never more of it is in memory than a line may have."""
        # By line feeds alone: text has line breaks of its own (U+2028) that JSON leaves as they are.
        while line := self._file.readline(LINE_BYTES_MAX):
            if line.endswith(b"\n") or len(line) == LINE_BYTES_MAX:
                yield line.removesuffix(b"\n")

    def remove(self) -> None:
        """All its lines have arrived, or are elsewhere. Raises StoreError: they would be sent without end."""
        if fcntl is None:  # Windows, where what is open cannot be removed
            self._file.close()
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"{self._path} has been sent, and cannot be removed ({error.strerror}): remove it."
            ) from error


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _try_lock(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _sync_folder(folder: Path) -> None:
    """The name of a new file is on the disk, where folders can be synced at all."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
