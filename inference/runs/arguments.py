"""The command line of infer.py, read before anything heavy is imported."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from emocaliber.command_line import CommandParser, is_server_url
from emocaliber.prompts import PROMPTS
from inference.backends.backend import CONFIDENCES, TAKES

Number = TypeVar("Number", int, float)
MOST_WORKERS = 255
"""On one machine: each row is marked in one byte with the worker that took it."""


def parse_arguments(argv: Sequence[str] | None = None, *, description: str) -> argparse.Namespace:
    """Read the command line."""
    parser = CommandParser(description=description)
    _add_what_is_asked(parser)
    _add_what_decides(parser)
    _add_the_machine(parser)
    _add_the_server(parser)
    argv = sys.argv[1:] if argv is None else list(argv)
    arguments = parser.parse_args(argv)
    _check(parser, arguments)
    arguments.command_line = argv  # for the processes of --workers
    return arguments


def _add_what_is_asked(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--checkpoint", metavar="DIR", help="a checkpoint folder, or a name on the hub")
    add("--data", type=Path, metavar="FILE", help="records, JSON lines, plain or gzipped")
    add(
        "--images",
        type=Path,
        metavar="SOURCE",
        help="instead of --data: a folder of images, or a text file that lists their paths",
    )
    add("--task", metavar="NAME", help="with --images: the task whose labels to choose from, such as FI-8")
    add("--candidates", metavar="LIST", help="with --images: labels of your own, such as 'joy, fear, awe'")
    add("--output-dir", required=True, type=Path, metavar="DIR", help="made if it is not there")
    add(
        "--image-root",
        type=Path,
        metavar="DIR",
        help="image paths are relative to it (default: folder of --data)",
    )
    add("--limit", type=positive, metavar="N", help="the first N rows only")
    add("--overwrite", action="store_true", help="discard what the output folder holds of a run")
    add("--retry-errors", action="store_true", help="when continuing, ask rows that have an error once more")
    add(
        "--keep-invalid",
        action="store_true",
        help="lines of --data that are no records become rows with an error (default: exit status 2)",
    )
    add(
        "--max-failures",
        type=from_zero,
        metavar="N",
        help="end the run when more than N rows of this start have an error (default: never)",
    )


def _add_what_decides(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what decides a response").add_argument
    add(
        "--prompt",
        "--elicit",
        choices=tuple(PROMPTS),
        metavar="NAME",
        help=f"one of {', '.join(PROMPTS)}: ask by it (default: by the messages of each record)",
    )
    add("--constrain", action="store_true", help="the response has to match the prompt's grammar")
    add(
        "--confidence",
        action="append",
        default=[],
        choices=CONFIDENCES,
        metavar="NAME",
        help=f"{' or '.join(CONFIDENCES)}: another one beside the stated; may be given several times",
    )
    add("--temperature", type=not_negative, default=0.7, help="0 decodes greedily (default: %(default)s)")
    add("--top-p", type=fraction, default=1.0, help="(default: %(default)s)")
    add("--max-new-tokens", type=positive, default=1024, help="longest response (default: %(default)s)")
    add("--n-samples", type=positive, default=1, help="samples a row; the first is the response (default: 1)")
    add(
        "--min-pixels",
        type=positive,
        default=256 * 28 * 28,
        help="smaller images grow to it (default: %(default)s)",
    )
    add(
        "--max-pixels",
        type=positive,
        default=576 * 28 * 28,
        help="larger ones shrink to it (default: %(default)s)",
    )
    add("--seed", type=int, default=0, help="with a row's id it gives the row's seed (default: %(default)s)")
    add(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="(default: %(default)s)",
    )
    add(
        "--max-model-len",
        type=positive,
        help="prompt, image and response tokens (default: what the limits need)",
    )


def _add_the_machine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the machine").add_argument
    add(
        "--backend",
        choices=tuple(TAKES),
        default="vllm",
        help="vllm in this process, an OpenAI-compatible server, or transformers, slow, to compare with "
        "(default: %(default)s)",
    )
    add(
        "--batch-size",
        type=positive,
        help="rows in the engine at a time (default: 256), or requests to the server (default: 32)",
    )
    add(
        "--workers",
        type=positive,
        help="engines side by side, one a GPU (default: 1; without a GPU 2 for a small checkpoint and many "
        "rows, where cores and memory are enough)",
    )
    add("--tensor-parallel-size", type=positive, default=1, help="GPUs of one engine (default: %(default)s)")
    add("--gpu-memory-utilization", type=fraction, default=0.9, help="(default: %(default)s)")
    add(
        "--ray",
        metavar="ADDRESS",
        help="the workers run on this Ray cluster: its address, `auto`, or `local` for one of this machine",
    )
    add("--verbose", action="store_true", help="show vLLM's own messages")
    add("--worker", type=int, help=argparse.SUPPRESS)  # set by --workers for its own processes
    add("--handout", type=int, help=argparse.SUPPRESS)


def _add_the_server(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("the server").add_argument
    add("--server-url", metavar="URL", help="of an OpenAI-compatible server; ends in /v1")
    add("--server-model", metavar="NAME", help="(default: the only one that the server has)")
    add(
        "--api-key-variable",
        metavar="NAME",
        default="OPENAI_API_KEY",
        help="the environment variable that holds the key, if there is one (default: %(default)s)",
    )
    add("--timeout-s", type=positive, default=600, help="for one request (default: %(default)s)")
    add("--price-in", type=not_negative, metavar="PRICE", help="of a million prompt tokens, for run.json")
    add("--price-out", type=not_negative, metavar="PRICE", help="of a million response tokens")


def _check(parser: CommandParser, arguments: argparse.Namespace) -> None:
    if (arguments.data is None) == (arguments.images is None):
        parser.error("give either --data or --images")
    if arguments.images is not None and (arguments.task is None) == (arguments.candidates is None):
        parser.error("--images needs one of --task and --candidates, and not both")
    if arguments.images is None and (arguments.task or arguments.candidates):
        parser.error("--task and --candidates belong to --images; the records of --data have their own")
    takes = TAKES[arguments.backend]
    if takes.server != (arguments.server_url is not None):
        parser.error(f"--server-url and --backend {_those_that('server')} belong together")
    if arguments.checkpoint is None and not takes.server:
        parser.error("--checkpoint is missing")
    for asked, options, ability in (
        ((arguments.workers or 1) > 1 or arguments.ray, "--workers and --ray are", "workers"),
        (arguments.constrain, "--constrain is", "constrain"),
        (arguments.confidence, "--confidence is", "confidences"),
    ):
        if asked and not getattr(takes, ability):
            parser.error(f"{options} for --backend {_those_that(ability)}, not {arguments.backend}")
    if arguments.n_samples > 1 and arguments.temperature == 0:
        parser.error("--n-samples needs a --temperature above 0: greedily all samples are the same")
    if arguments.images is not None and (arguments.image_root or arguments.keep_invalid):
        parser.error("--image-root and --keep-invalid belong to --data")
    if (arguments.workers or 1) > MOST_WORKERS and not arguments.ray:
        parser.error(f"--workers {arguments.workers}: at most {MOST_WORKERS} on one machine")
    if arguments.worker is not None and arguments.handout is None:
        parser.error("--worker is set by --workers for its own processes; give --workers")
    if arguments.server_url is not None and not is_server_url(arguments.server_url):
        # Not shown: it may hold a password.
        parser.error("--server-url is not http(s)://HOST[:PORT]/v1; a key goes into an environment variable")
    if arguments.server_model is not None and arguments.server_url is None:
        parser.error("--server-model belongs to --server-url")
    if arguments.min_pixels > arguments.max_pixels:
        parser.error(f"--min-pixels {arguments.min_pixels} is above --max-pixels {arguments.max_pixels}")
    if (arguments.price_in is None) != (arguments.price_out is None):
        parser.error("--price-in and --price-out belong together")
    arguments.confidence = sorted(set(arguments.confidence))
    if arguments.batch_size is None:
        arguments.batch_size = takes.batch_size


def _those_that(ability: str) -> str:
    """Name the backends that have an ability of `Takes`."""
    return " or ".join(name for name, takes in TAKES.items() if getattr(takes, ability))


def _number(kind: type[Number], is_fine: Callable[[Number], bool], fault: str) -> Callable[[str], Number]:
    """Give what reads the number of an option; argparse's own message would show the name of a function."""

    def read(text: str) -> Number:
        try:
            number = kind(text)
        except ValueError:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None
        if not is_fine(number):
            raise argparse.ArgumentTypeError(f"{text} is {fault}")
        return number

    return read


positive = _number(int, lambda number: number >= 1, "not above 0")
from_zero = _number(int, lambda number: number >= 0, "below 0")
not_negative = _number(float, lambda number: 0 <= number < float("inf"), "not a number from 0 on")
fraction = _number(float, lambda number: 0 < number <= 1, "not above 0 and at most 1")
