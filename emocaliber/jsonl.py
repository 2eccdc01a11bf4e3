"""Files of JSON lines: read naming the place of every fault, write leaving nothing half-written."""

import gzip
import json
import math
import os
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, NoReturn, TypeVar

PathLike = str | os.PathLike[str]
_Appender = TypeVar("_Appender", bound="JsonlAppender")


class RecordError(ValueError):
    """A user's mistake in the data. The message is one line: where, what is wrong, what to do."""


class NotAnObject(RecordError):
    """A line that is JSON of another kind."""


def read_jsonl(path: PathLike) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for every line that is not blank, of a plain or gzipped file.

    Raises RecordError for a file that cannot be read and for a line that is not a JSON object.
    """
    for number, row in read_jsonl_with_faults(path):
        if isinstance(row, RecordError):
            raise row
        yield number, row


def read_jsonl_with_faults(path: PathLike) -> Iterator[tuple[int, dict[str, Any] | RecordError]]:
    """Read as `read_jsonl` does; a line that is not a JSON object is given as the error, not raised."""
    try:
        with _open_for_reading(path) as lines:
            for number, line in enumerate(lines, start=1):
                row: dict[str, Any] | RecordError | None
                try:
                    text = _text_of(line, f"{path}:{number}")
                    row = _object_in(text, f"{path}:{number}") if text.strip() else None
                except RecordError as error:
                    row = error
                if row is not None:
                    yield number, row
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error) or "unexpected end of file"
        raise RecordError(f"{path}: cannot be read ({reason}); give a readable file of JSON lines") from None


@contextmanager
def _open_for_reading(path: PathLike) -> Iterator[BufferedReader | gzip.GzipFile]:
    # Opened once: what was read from a pipe cannot be read again.
    with open(path, "rb") as file:
        # A pipe may have only one byte of gzip's two ready; no JSON text begins with the first.
        if file.peek(2).startswith(b"\x1f"):
            with gzip.open(file, "rb") as unpacked:
                yield unpacked
        else:
            yield file


def _text_of(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RecordError(f"{where}: not UTF-8 text; save the file as UTF-8") from None


def _object_in(text: str, where: str) -> dict[str, Any]:
    try:
        record = STRICT_DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else type(error).__name__
        raise RecordError(f"{where}: not JSON ({reason}); write one JSON object a line") from None
    if not isinstance(record, dict):
        kind = type(record).__name__
        raise NotAnObject(f"{where}: a JSON {kind}, not an object; write one JSON object a line")
    return record


def _finite_float(written: str) -> float:
    number = float(written)
    return number if math.isfinite(number) else _refuse_number(written)


def _refuse_number(written: str) -> NoReturn:
    raise json.JSONDecodeError(f"{written[:20]} is no JSON number", written, 0)


# Made once: json.loads and json.dumps make new ones for every call with settings.
STRICT_DECODER = json.JSONDecoder(parse_constant=_refuse_number, parse_float=_finite_float)
"""Refuses what JSON does not have: NaN and infinity, also as 1e999."""
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_ASCII_ENCODER = json.JSONEncoder(allow_nan=False)


def _encode(row: Mapping[str, Any]) -> bytes:
    try:
        return _ENCODER.encode(row).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # a lone surrogate: JSON can hold it as an escape, UTF-8 cannot
        return _ASCII_ENCODER.encode(row).encode("ascii") + b"\n"


def _write_atomic(path: PathLike, parts: Iterable[bytes]) -> None:
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        if error.filename != os.fspath(temporary):
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None  # the name that the user knows
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: PathLike, text: str) -> None:
    """Write a UTF-8 text: afterwards the file holds all of it, or what it held before.

    A lone surrogate, which UTF-8 cannot hold, is written as its escape: in JSON it means the same.
    """
    content = text.encode("utf-8", errors="backslashreplace")  # \udc80, as JSON writes it too
    _write_atomic(path, [content])


def write_jsonl_atomic(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, gzipped for a name in `.gz`: all of them, or the file stays what it was.

    Raises ValueError for a number that JSON does not have (NaN, infinity).
    """
    lines = map(_encode, rows)
    if os.fspath(path).endswith(".gz"):
        # One member per file without name and time: the same rows give the same bytes.
        _write_atomic(path, [gzip.compress(b"".join(lines), mtime=0)])
    else:
        _write_atomic(path, lines)


class JsonlAppender:
    """Adds rows to a file of JSON lines that survives being killed between or in the middle of writes.

    Opening repairs a last line that was cut off: a complete object gets its line end, anything else is
    removed. Each `write` is one append of one line; `fsync=True` also waits for the disk.
    """

    def __init__(self, path: PathLike, *, fsync: bool = False) -> None:
        self._fsync = fsync
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        _repair_last_line(path)
        self._file = FileIO(path, "a")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. Raises ValueError after `close`, and for NaN and infinity."""
        line = memoryview(_encode(row))
        while line:
            line = line[self._file.write(line) :]
        if self._fsync:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; more than once does no harm."""
        self._file.close()

    def __enter__(self: _Appender) -> _Appender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StagedJsonl(JsonlAppender):
    """A list that is written beside `path` and takes its place by `finish`, or goes when the block ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._staged = path.with_name(f".{path.name}.partial")
        self._staged.unlink(missing_ok=True)
        super().__init__(self._staged)

    def finish(self) -> None:
        """Put the list in its place; more than once does no harm."""
        self.close()
        if self._staged.exists():
            self._staged.replace(self.path)

    def __exit__(self, *_: object) -> None:
        self.close()
        self._staged.unlink(missing_ok=True)


def _repair_last_line(path: PathLike) -> None:
    if not os.path.exists(path):
        return
    with open(path, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start, tail = size, b""
        while start and b"\n" not in tail:
            step = min(start, 1 << 16)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn:
            return
        try:
            _object_in(_text_of(torn, ""), "")
        except RecordError:
            file.truncate(size - len(torn))
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")
