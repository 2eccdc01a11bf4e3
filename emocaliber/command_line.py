"""The argument parser of every command: a user's mistake is told in one line, with exit status 2."""

import argparse
import io
import sys
from typing import Any, NoReturn


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
