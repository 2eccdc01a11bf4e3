"""The command line of build_vec_cot.py."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from emocaliber.command_line import CommandParser, is_server_url, read_key
from emocaliber.image_scan import WORKERS

KEY_VARIABLE = "TEACHER_API_KEY"


def parse_arguments(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """Read and check the command line."""
    parser = CommandParser(description=description)
    add = parser.add_argument
    add("--records", type=Path, nargs="+", required=True, help="JSON lines with task and label")
    add("--output-dir", type=Path, required=True)
    add("--image-root", type=Path, help="of image paths (default: the folder of the records)")
    add("--limit", type=int, help="a random sample of so many rows, to see what it costs")
    add("--seed", type=int, default=0, help="of the split, the order and --limit")
    add("--threads", **WORKERS)
    add_teacher(parser)
    add_filters(parser)
    add_stages(parser)
    args = parser.parse_args(argv)
    check(parser, args)
    return args


def add_teacher(parser: argparse.ArgumentParser) -> None:
    """Who is asked, and how."""
    group = parser.add_argument_group("teacher")
    add = group.add_argument
    add("--teacher-url", required=True, help="OpenAI-compatible, such as http://127.0.0.1:8000/v1")
    add("--teacher-model", required=True, help="the name that the server knows it by")
    add(
        "--api-key-variable",
        default=KEY_VARIABLE,
        help=f"environment variable with the key, never stored (default {KEY_VARIABLE}; unset: no key)",
    )
    mode = group.add_mutually_exclusive_group(required=True)
    mode.add_argument("--given-label", action="store_true", help="the teacher is told the label")
    mode.add_argument(
        "--blind", action="store_true", help="it is not told, and counts only where its label is the true one"
    )
    add(
        "--teacher-prompt",
        default="own",
        help="`own` (default), `student`: the question that the trained model is asked, for --blind; or a "
        "text file with {candidates}, {label} (--given-label), and if wanted {task}, {format}",
    )
    add("--temperature", type=float, default=0.7)
    add("--max-tokens", type=int, default=1024, help="of an answer")
    add("--request-json", default="{}", help="more fields of the request; null takes one of the above out")
    add("--max-pixels", type=int, help="images are scaled down to this before they are sent")
    add("--concurrency", type=int, default=16, help="questions under way at a time")
    add("--timeout-s", type=float, default=120.0)
    add("--max-retries", type=int, default=6, help="of one question, with growing waits")
    add("--max-failures-in-a-row", type=int, default=50, help="after which the server counts as down")
    add("--max-errors", type=float, default=0.02, help="share of questions without an answer that is allowed")
    add("--price-in", type=float, default=0.0, help="for a million tokens of questions")
    add("--price-out", type=float, default=0.0, help="for a million tokens of answers")


def add_filters(parser: argparse.ArgumentParser) -> None:
    """What a chain has to be."""
    add = parser.add_argument_group("filters").add_argument
    add("--min-words", type=int, default=3, help="of each section")
    add("--max-words", type=int, default=120, help="of each section")
    add("--max-characters", type=int, default=1000, help="of each section")
    add("--leak-patterns", type=Path, help="regular expressions, one a line, in place of the built-in ones")
    add(
        "--max-images-per-text", type=int, default=1, help="images that may share one reasoning word for word"
    )


def add_stages(parser: argparse.ArgumentParser) -> None:
    """What is made of the chains."""
    add = parser.add_argument_group("stages").add_argument
    add("--stage-shares", type=float, nargs=3, default=(0.6, 0.3, 0.1), metavar="SHARE")
    add(
        "--filter-stage3",
        action="store_true",
        help="ask about stage 3 too and keep rows whose chain passes (default: not asked, RL needs no chain)",
    )
    add("--confidence-method", choices=("agreement", "teacher", "constant"), required=True)
    add("--samples", type=Path, help="agreement: predictions of a stage-1 model, --n-samples 16")
    add("--constant", default="0.8", help="constant: the confidence (default 0.8)")
    add("--image-paths", action="store_true", help="paths in the Parquet, not the images' bytes")
    add("--rl-min-pixels", type=int, help="written into the Parquet, see build_rl_parquet.py")
    add("--rl-max-pixels", type=int)


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with one line for values that cannot be meant, and give the others their types."""
    positive = ["max_tokens", "concurrency", "timeout_s", "max_failures_in_a_row", "max_words"]
    positive += [
        "max_characters",
        "max_images_per_text",
        "limit",
        "max_pixels",
        "rl_min_pixels",
        "rl_max_pixels",
    ]
    for name in positive:
        value = getattr(args, name)
        if value is not None and not value > 0:
            parser.error(f"--{name.replace('_', '-')} {value}: give more than 0")
    for name in ("min_words", "max_retries", "price_in", "price_out"):
        if not getattr(args, name) >= 0:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: give 0 or more")
    if not 0 <= args.max_errors <= 1:
        parser.error(f"--max-errors {args.max_errors}: give a share between 0 and 1")
    if min(args.stage_shares) < 0 or not math.isclose(sum(args.stage_shares), 1, abs_tol=1e-6):
        parser.error(f"--stage-shares {args.stage_shares}: give three shares that sum to 1")
    check_server(parser, args)
    if args.samples is not None and args.confidence_method != "agreement":
        parser.error("--samples: only --confidence-method agreement reads them")
    if args.image_root is None:
        folders = {path.parent for path in args.records}
        if len(folders) > 1:
            parser.error("--records are in several folders; give --image-root")
        args.image_root = folders.pop()
    check_encoding(parser, args)
    try:
        args.constant = Decimal(args.constant)
        if not 0 <= args.constant <= 1:
            raise InvalidOperation
    except InvalidOperation:
        parser.error(f"--constant {args.constant}: give a confidence between 0 and 1")
    args.request = request(parser, args)


def check_server(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with one line, which repeats neither, for an address or a key that can be none."""
    if not is_server_url(args.teacher_url):
        parser.error("--teacher-url: give http(s)://HOST[:PORT]/v1; a key goes into the environment variable")
    try:
        read_key(args.api_key_variable)
    except ValueError as error:
        parser.error(str(error))


def check_encoding(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with one line for a path that Parquet would refuse after the teacher was paid."""
    paths = {"output_dir": args.output_dir}
    if args.image_paths:
        paths["image_root"] = args.image_root.resolve()
    for name, path in paths.items():
        try:
            str(path).encode()
        except UnicodeEncodeError:
            parser.error(
                f"--{name.replace('_', '-')} {str(path)!a}: not UTF-8, as Parquet needs; give another"
            )


def request(parser: argparse.ArgumentParser, args: argparse.Namespace) -> dict[str, object]:
    """The fields of every chat completion besides its messages."""
    fields = {"model": args.teacher_model, "temperature": args.temperature, "max_tokens": args.max_tokens}
    try:
        more = json.loads(args.request_json)
    except ValueError as error:
        parser.error(f"--request-json is not JSON ({error})")
    if not isinstance(more, dict) or {"messages", "model", "stream", "n"} & more.keys():
        parser.error("--request-json: give an object without messages, model, stream and n")
    return {name: value for name, value in (fields | more).items() if value is not None}
