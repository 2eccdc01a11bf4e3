"""Rows handed out to several processes one by one: who is free takes the next, none idles at the end.

One byte of a shared file for each row: 0 while it is free, else the number, from 1, of the process that took
it. A lock of the operating system guards it, which ends with the process that holds it.
"""

import fcntl
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager

_BLOCK = 2**16
MOST_TAKERS = 255


class Handout:
    """The shared list of rows; `descriptor` is inherited by the processes that take from it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._last_taken = 0

    @classmethod
    def of(cls, n_rows: int) -> "Handout":
        """Make one of `n_rows` free rows."""
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        os.truncate(descriptor, n_rows)
        return cls(descriptor)

    def take(self, taker: int) -> int | None:
        """Give `taker` (from 0) the number of a free row; None if there is none."""
        with self._locked():
            # From the beginning once more: rows before the last one taken may have been given back.
            row = self._next_free(self._last_taken) if self._last_taken else None
            row = self._next_free(0) if row is None else row
            if row is not None:
                os.pwrite(self.descriptor, bytes([taker + 1]), row)
                self._last_taken = row
            return row

    def _next_free(self, start: int) -> int | None:
        while block := os.pread(self.descriptor, _BLOCK, start):
            place = block.find(0)
            if place >= 0:
                return start + place
            start += len(block)
        return None

    def taken_by(self, taker: int) -> list[int]:
        """Give the rows that a process took."""
        return [row for row, owner in enumerate(self._owners()) if owner == taker + 1]

    def n_free(self) -> int:
        """Count the rows that nobody has taken."""
        return self._owners().count(0)

    def free(self, rows: Collection[int]) -> None:
        """Give rows back, to be taken again. Only for rows whose taker has ended."""
        with self._locked():
            for row in rows:
                os.pwrite(self.descriptor, b"\0", row)

    def rows_for(self, taker: int) -> Iterator[int]:
        """Take row after row, each when it is asked for, until none is free."""
        while (row := self.take(taker)) is not None:
            yield row

    def close(self) -> None:
        """Close the file; the others keep theirs."""
        os.close(self.descriptor)

    def _owners(self) -> bytes:
        size = os.fstat(self.descriptor).st_size
        return b"".join(os.pread(self.descriptor, _BLOCK, start) for start in range(0, size, _BLOCK))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN)
