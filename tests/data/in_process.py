"""A command of data/ run in the process of the tests: its exit status and what it says."""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run(main: Callable[[Sequence[str]], int], *arguments: str | Path) -> Result:
    """Progress bars are not part of its stderr."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    with (
        patch.dict("os.environ", {"TQDM_DISABLE": "1"}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            status = main([str(one) for one in arguments])
        except SystemExit as end:  # of the parser, or by SIGTERM
            status = int(str(end.code))
    out.flush()
    return Result(status, out.buffer.getvalue().decode(), err.getvalue())
