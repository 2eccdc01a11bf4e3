"""How every command reads its arguments and how it ends: a mistake is one line, each kind of end one status.

0: done. 1: it was asked the right thing and failed (`Failure`), or says so itself. 2: the user can mend it:
other arguments, other data, other paths, more memory. 130, 143: ended by Ctrl-C or SIGTERM. 141: its standard
output was closed (`| head`).
"""

import argparse
import errno
import io
import os
import re
import select
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

from emocaliber.jsonl import RecordError


class Failure(RuntimeError):
    """Something failed that other arguments would not have mended; the command ends with status 1."""


class CommandParser(argparse.ArgumentParser):
    """An `ArgumentParser` that keeps the line breaks of its texts and tells a mistake in one line.

    From then on the command prints what its terminal cannot show, such as a file name that is not UTF-8, as
    an escape instead of ending at it.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, **kwargs)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # not what a caller may have put in their place
                stream.reconfigure(errors="backslashreplace")

    def error(self, message: str) -> NoReturn:
        """End the command with `error: MESSAGE; see --help` on stderr and exit status 2."""
        self.exit(2, f"error: {' '.join(message.split())}; see --help\n")


def run_command(
    command: Callable[[], int | None],
    *,
    if_interrupted: str = "",
    if_no_memory: str = "free memory",
) -> int:
    """Run a command to its end; whatever ends it unwinds it, so that it clears away what is half-written.

    Args:
        command: gives the exit status, None for 0.
        if_interrupted: printed after "interrupted: ", such as what the same command does next time.
        if_no_memory: the remedy to name, such as "give fewer --workers, or free memory".
    Returns:
        The exit status, as the head of this module says.
    Raises:
        SystemExit: 143, for SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        status = command() or 0
        print(end="", flush=True)
        return status
    except RecordError as error:
        return _say_error(str(error), 2)
    except Failure as error:
        return _say_error(str(error), 1)
    except MemoryError as error:
        return _say_error(f"{str(error) or 'not enough memory'}; {if_no_memory}", 2)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_stdout_closed():
            return 128 + signal.SIGPIPE
        reason = error.strerror or str(error) or type(error).__name__
        if error.errno == errno.ENOMEM:
            return _say_error(f"{reason}; {if_no_memory}", 2)
        if error.filename is None:  # not a path of the user's: a connection, a full disk, a picture
            return _say_error(reason, 1)
        return _say_error(f"{error.filename or repr(error.filename)}: {reason}; give other paths", 2)
    except KeyboardInterrupt:
        if if_interrupted:
            print(f"interrupted: {if_interrupted}", file=sys.stderr)
        return 128 + signal.SIGINT
    finally:
        try:
            print(end="", flush=True)
        except OSError:
            # What is still to be printed would fail once more when Python ends, with a status of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        signal.signal(signal.SIGTERM, before)


def _is_stdout_closed() -> bool:
    """Has the reader of standard output gone? False where there is none, or not a file."""
    poller = select.poll()
    try:
        poller.register(sys.stdout, 0)
    except (TypeError, ValueError):
        return False
    return bool(poller.poll(0))


def _say_error(message: str, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the clearing away
    raise SystemExit(128 + number)


def is_server_url(url: str) -> bool:
    """Is this http(s)://HOST[:PORT]/PATH without a name, a password or a query, which would be a secret?"""
    if not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port  # read, so that one that is no number is met
    except ValueError:
        return False
    is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
    return is_address and not ("@" in parts.netloc or parts.query)


def read_key(variable: str) -> str:
    """Read a server's key from an environment variable, white space around it aside; "" for none.

    Raises RecordError for what no header of a request can hold, such as two keys on two lines. The message is
    one line and does not repeat the value: the HTTP library's own would, in every failure that it tells.
    """
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch("[!-~]*", key):
        raise RecordError(
            f"the environment variable {variable} holds no key, which is printable ASCII without white space "
            "in it; export it again"
        )
    return key
