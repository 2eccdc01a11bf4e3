"""Run a model over a benchmark and measure its answers: the commands of this room and their parts."""
