"""For all tests: helpers to import, examples of a property, the order of files, and the end of the time."""

import os
import sys
import time
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
# Helpers that several folders import, such as chat_server. Last, so that no installed package is shadowed.
sys.path.append(str(TESTS))

# How long an example takes is not what a test of a property checks.
settings.register_profile("every-day", max_examples=40, deadline=None)
settings.register_profile("all", max_examples=200, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "every-day"))

STARTS_FIRST = ("train", "inference", "data")
"""Folders whose files take long: begun last, one of them would run alone at the end while a worker idles."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of the folders that take long first."""
    items.sort(key=lambda item: _rank(item.path))


def _rank(file: Path) -> int:
    room = file.relative_to(TESTS).parts[0] if file.is_relative_to(TESTS) else ""
    return STARTS_FIRST.index(room) if room in STARTS_FIRST else len(STARTS_FIRST)


class UntilEnd:
    """Starts no test after the time that EMOCALIBER_TESTS_END gives, and counts those that did not start."""

    def __init__(self, end_s: float) -> None:
        self.end_s = end_s  # since 1970
        self.collected: set[str] = set()
        self.started: set[str] = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Take the test over, to do nothing with it, once the time is over."""
        return True if time.time() >= self.end_s else None

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note the tests of a run in one process."""
        self.collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note the tests of a run in several processes."""
        self.collected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note that a test has started."""
        self.started.add(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say in one line which files hold tests that did not start."""
        left = self.collected - self.started
        if left and time.time() >= self.end_s:
            files = ", ".join(sorted({name.split("::")[0] for name in left}))
            terminalreporter.write_line(f"out of time: {len(left)} tests did not start, of {files}")


def pytest_configure(config: pytest.Config) -> None:
    """Watch the time if there is an end to it."""
    end = os.environ.get("EMOCALIBER_TESTS_END")
    if end:
        config.pluginmanager.register(UntilEnd(float(end)), "until-end")
