"""For all tests: how long an example may take is no property that they check."""

from hypothesis import settings

settings.register_profile("no_stopwatch", deadline=None)
settings.load_profile("no_stopwatch")
