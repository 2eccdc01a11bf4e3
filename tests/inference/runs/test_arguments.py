"""Arguments that do not go together: one line that says so, exit status 2."""

import pytest

from inference.runs.arguments import parse_arguments

DATA = ["--data", "d.jsonl"]
MINE = ["--checkpoint", "c", "--output-dir", "o"]
SERVER = ["--backend", "server", "--server-url", "http://localhost:8000/v1", "--output-dir", "o"]


def parsed(*arguments: str) -> dict[str, object]:
    return vars(parse_arguments(arguments, description="what it does"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*MINE], "give either --data or --images"),
        ([*MINE, *DATA, "--images", "i", "--task", "FI-8"], "give either --data or --images"),
        ([*MINE, "--images", "i"], "--images needs one of --task and --candidates, and not both"),
        (
            [*MINE, "--images", "i", "--task", "FI-8", "--candidates", "a, b"],
            "--images needs one of --task and --candidates, and not both",
        ),
        (
            [*MINE, *DATA, "--task", "FI-8"],
            "--task and --candidates belong to --images; the records of --data have their own",
        ),
        (
            [*MINE, *DATA, "--candidates", "a, b"],
            "--task and --candidates belong to --images; the records of --data have their own",
        ),
        ([*MINE, *DATA, "--backend", "server"], "--server-url and --backend server belong together"),
        ([*MINE, *DATA, "--server-url", "http://a/v1"], "--server-url and --backend server belong together"),
        ([*DATA, "--output-dir", "o"], "--checkpoint is missing"),
        ([*DATA, "--output-dir", "o", "--backend", "transformers"], "--checkpoint is missing"),
        ([*SERVER, *DATA, "--workers", "2"], "--workers and --ray are for --backend vllm, not server"),
        ([*SERVER, *DATA, "--ray", "local"], "--workers and --ray are for --backend vllm, not server"),
        (
            [*MINE, *DATA, "--backend", "transformers", "--workers", "2"],
            "--workers and --ray are for --backend vllm, not transformers",
        ),
        (
            [*MINE, *DATA, "--backend", "transformers", "--constrain"],
            "--constrain is for --backend vllm or server, not transformers",
        ),
        (
            [*SERVER, *DATA, "--confidence", "p_true"],
            "--confidence is for --backend vllm or transformers, not server",
        ),
        (
            [*MINE, *DATA, "--min-pixels", "785", "--max-pixels", "784"],
            "--min-pixels 785 is above --max-pixels 784",
        ),
        ([*SERVER, *DATA, "--price-in", "1"], "--price-in and --price-out belong together"),
        ([*SERVER, *DATA, "--price-out", "0"], "--price-in and --price-out belong together"),
        (
            [*MINE, *DATA, "--n-samples", "2", "--temperature", "0"],
            "--n-samples needs a --temperature above 0: greedily all samples are the same",
        ),
        (
            [*MINE, "--images", "i", "--task", "FI-8", "--image-root", "r"],
            "--image-root and --keep-invalid belong to --data",
        ),
        ([*MINE, *DATA, "--workers", "256"], "--workers 256: at most 255 on one machine"),
        (
            [*MINE, *DATA, "--worker", "2"],
            "--worker is set by --workers for its own processes; give --workers",
        ),
        (
            ["--backend", "server", "--server-url", "http://u:SECRET@h/v1", "--output-dir", "o", *DATA],
            "--server-url is not http(s)://HOST[:PORT]/v1; a key goes into an environment variable",
        ),
        ([*MINE, *DATA, "--server-model", "m"], "--server-model belongs to --server-url"),
        ([*MINE, *DATA, "--max-failures", "-1"], "argument --max-failures: -1 is below 0"),
        ([*MINE, *DATA, "--workers", "0"], "argument --workers: 0 is not above 0"),
        ([*MINE, *DATA, "--n-samples", "1.5"], "argument --n-samples: '1.5' is not a whole number"),
        ([*MINE, *DATA, "--top-p", "1.01"], "argument --top-p: 1.01 is not above 0 and at most 1"),
        ([*MINE, *DATA, "--top-p", "nan"], "argument --top-p: nan is not above 0 and at most 1"),
        ([*MINE, *DATA, "--temperature", "inf"], "argument --temperature: inf is not a number from 0 on"),
        ([*SERVER, *DATA, "--price-in", "-1", "--price-out", "1"], None),
        ([*MINE, *DATA, "--confidence", "stated"], None),
        ([*MINE, *DATA, "--prompt", "gone"], None),
        ([*MINE, *DATA, "--backend", "sglang"], None),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_line(
    arguments: list[str], message: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(*arguments)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    if message is not None:
        assert captured.err == f"error: {message}; see --help\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [*MINE, *DATA],
        [*MINE, "--images", "i", "--task", "FI-8"],
        [*MINE, "--images", "i", "--candidates", "a, b"],
        [*MINE, *DATA, "--constrain", "--prompt", "published", "--confidence", "likelihood"],
        [*MINE, *DATA, "--backend", "transformers", "--confidence", "p_true"],
        [*SERVER, *DATA],
        [*SERVER, *DATA, "--checkpoint", "c", "--constrain", "--price-in", "0", "--price-out", "2.5"],
    ],
)
def test_what_goes_together(arguments: list[str]) -> None:
    assert parsed(*arguments)["output_dir"]


def test_confidences_are_the_same_in_any_order_and_number() -> None:
    one = parsed(*MINE, *DATA, "--confidence", "p_true", "--confidence", "likelihood")
    other = parsed(
        *MINE, *DATA, "--confidence", "likelihood", "--confidence", "p_true", "--confidence", "p_true"
    )
    del one["command_line"], other["command_line"]
    assert one == other
    assert one["confidence"] == ["likelihood", "p_true"]
    assert parsed(*MINE, *DATA)["confidence"] == []


def test_rows_at_a_time_are_those_of_the_backend_or_as_asked() -> None:
    assert parsed(*MINE, *DATA)["batch_size"] == 256
    assert parsed(*SERVER, *DATA)["batch_size"] == 32
    assert parsed(*SERVER, *DATA, "--batch-size", "5")["batch_size"] == 5


def test_elicit_is_another_name_of_prompt() -> None:
    assert parsed(*MINE, *DATA, "--elicit", "distribution")["prompt"] == "distribution"
    assert parsed(*MINE, *DATA)["prompt"] is None
