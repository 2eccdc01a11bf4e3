"""The lines at the end of a run."""

from typing import Any

from inference.runs.answering import closing_lines

DONE = {"rows_done": 3, "rows_done_before": 1}
RATES = {"rows_per_s": 1.5, "prompt_tokens_per_s": 120.4, "response_tokens_per_s": 60.5, "first_row_s": 9.25}


def lines(n_rows: int, n_responses: int, errors: dict[str, int], **attempt: Any) -> list[str]:
    return closing_lines({**DONE, **attempt}, n_rows, n_responses, errors)


def test_rows_by_their_outcome() -> None:
    assert lines(4, 4, {}) == ["4 rows: 4 with a response, 0 with an error; 3 done now, 1 before"]


def test_errors_are_counted_and_named_by_their_type() -> None:
    assert lines(4, 1, {"image_missing": 1, "image_bad": 2}) == [
        "4 rows: 1 with a response, 3 with an error (2 image_bad, 1 image_missing; see error.jsonl); "
        "3 done now, 1 before"
    ]


def test_rates_and_the_time_to_the_first_row() -> None:
    assert lines(4, 4, {}, **RATES)[1:] == [
        "1.5 rows/s, 120 prompt and 60 response tokens/s; first row after 9.25 s"
    ]


def test_what_the_confidences_cost_a_row() -> None:
    spent = {"likelihood": 900, "p_true": 400}
    assert lines(4, 4, {}, confidence_tokens=spent)[1:] == [
        "tokens a row beyond the response: 300 for likelihood, 133 for p_true"
    ]


def test_gpus_and_what_a_server_costs() -> None:
    gpus = {
        "0": {"utilisation_percent": 97.3, "memory_mib": 70000.0},
        "1": {"utilisation_percent": 0.0, "memory_mib": 3.0},
    }
    assert lines(4, 4, {}, gpus=gpus, cost=0.012, cost_per_1000_rows=4.0)[1:] == [
        "GPU 0: 97.3 % busy, 70000 MiB at most",
        "GPU 1: 0.0 % busy, 3 MiB at most",
        "cost 0.012, 4.0 per 1,000 rows",
    ]
