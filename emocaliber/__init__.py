"""EmoCaliber: visual emotion comprehension with a confidence that can be checked."""

__version__ = "0.1.0"
