"""Runs a command of this folder to its end: mistakes and Ctrl-C in one line, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn


def no_memory(error: MemoryError) -> str:
    """What there was no memory for, where the error tells it."""
    return str(error) or "not enough memory"


def run_command(command: Callable[[], int | None]) -> NoReturn:
    """Run it and exit: with its own status (None is 0), 2 for what the user can mend, 130 for Ctrl-C.

    The command has to go on where it stopped when it is given again, and to have --workers.
    """
    from emocaliber.jsonl import RecordError

    try:
        status = command()
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; give other paths", file=sys.stderr)
        status = 2
    except MemoryError as error:
        print(f"error: {no_memory(error)}; give fewer --workers, or free memory", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        status = 130
    raise SystemExit(status or 0)
