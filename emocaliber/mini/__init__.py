"""The mini world: scenes that can be drawn, described, and judged by a known label distribution."""
