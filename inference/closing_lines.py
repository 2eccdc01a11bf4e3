"""What a run says at its end, of what run.json holds of it."""

from collections.abc import Mapping
from typing import Any


def closing_lines(
    attempt: Mapping[str, Any], n_rows: int, n_responses: int, errors: Mapping[str, int]
) -> list[str]:
    """Give the lines to print: rows by outcome, rates, time to the first row, GPUs, cost.

    Args:
        attempt: this start's entry of run.json.
        n_rows: of the data.
        n_responses: rows with a response, of all starts.
        errors: how many rows have an error, by its type.
    """
    named = ", ".join(f"{count} {name}" for name, count in sorted(errors.items()))
    lines = [
        f"{n_rows} rows: {n_responses} with a response, {sum(errors.values())} with an error"
        + (f" ({named}; see error.jsonl)" if named else "")
        + f"; {attempt['rows_done']} done now, {attempt['rows_done_before']} before"
    ]
    if "rows_per_s" in attempt:
        lines.append(
            f"{attempt['rows_per_s']} rows/s, {attempt['prompt_tokens_per_s']:.0f} prompt and "
            f"{attempt['response_tokens_per_s']:.0f} response tokens/s; first row after "
            f"{attempt['first_row_s']} s"
        )
    if "confidence_tokens" in attempt:
        spent = (
            f"{n / max(1, attempt['rows_done']):.0f} for {name}"
            for name, n in attempt["confidence_tokens"].items()
        )
        lines.append(f"tokens a row beyond the response: {', '.join(spent)}")
    for index, gpu in attempt.get("gpus", {}).items():
        lines.append(f"GPU {index}: {gpu['utilisation_percent']} % busy, {gpu['memory_mib']:.0f} MiB at most")
    if "cost" in attempt and attempt["cost"] is None:
        lines.append("cost unknown: the server did not count the tokens of every row")
    elif "cost" in attempt:
        lines.append(f"cost {attempt['cost']}, {attempt['cost_per_1000_rows']} per 1,000 rows")
    return lines
