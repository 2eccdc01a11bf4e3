"""Puts all files of a command into their folder at the end, or none."""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from emocaliber.records import RecordError

_PREFIX = ".evaluation-"

# A process that was killed leaves its folder behind; a living one writes into its own far more often.
_LEFT_BEHIND_AFTER_S = 3600


def replace_together(
    output_dir: Path, write_into: Callable[[Path], None], outdated: Callable[[set[str]], set[str]]
) -> list[str]:
    """Fill a folder inside the output first and move its files up at the end, one by one.

    An error before the first move changes nothing; one among the moves leaves new files beside old ones.
    Such folders of killed processes are removed once nothing has been written there for an hour.

    Args:
        output_dir: made if it is not there, with its parents; they are removed again if nothing is written.
        write_into: fills the folder that it is given with files.
        outdated: given the names that were written, the names to remove from `output_dir`.
    Returns:
        The names of the files that were written.
    Raises:
        RecordError: the folder cannot be written.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise RecordError(f"{output_dir}: not a folder; give --output-dir a folder")
    try:
        missing = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            _remove_left_behind(output_dir)
            return _replace(output_dir, write_into, outdated)
        finally:
            for folder in missing:  # the innermost first; those that hold something stay
                with contextlib.suppress(OSError):
                    folder.rmdir()
    except OSError as error:
        raise RecordError(_told(error, output_dir)) from None


def _replace(
    output_dir: Path, write_into: Callable[[Path], None], outdated: Callable[[set[str]], set[str]]
) -> list[str]:
    staging = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=output_dir))
    try:
        write_into(staging)
        files = sorted(staging.iterdir())
        for file in files:
            if (output_dir / file.name).is_dir():
                raise IsADirectoryError(errno.EISDIR, f"{file.name} in it is a folder")
        for file in files:
            os.replace(file, output_dir / file.name)
        names = [file.name for file in files]
        for name in outdated(set(names)):
            (output_dir / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return names


def _remove_left_behind(output_dir: Path) -> None:
    for folder in output_dir.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another process may be removing it, too
            last_written = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
            if time.time() - last_written > _LEFT_BEHIND_AFTER_S:
                shutil.rmtree(folder)


def _told(error: OSError, output_dir: Path) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error.filename, str | os.PathLike):
        file, folder = (Path(os.path.realpath(path)) for path in (error.filename, output_dir))
        if not file.is_relative_to(folder) and not folder.is_relative_to(file):
            return f"{error.filename}: {reason}, on writing {output_dir}; mend that and run the command again"
    return f"{output_dir}: cannot be written ({reason}); give a folder that can"
