"""For the tests of the library."""

import signal
from collections.abc import Iterator

import pytest

MOST_S = 60


@pytest.fixture
def in_linear_time() -> Iterator[None]:
    """End a test after a minute of processor time: what is linear takes seconds, a quadratic step hours."""

    def stop(*_: object) -> None:
        pytest.fail(f"not done after {MOST_S} s of processor time: a step is not linear")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_S)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)
