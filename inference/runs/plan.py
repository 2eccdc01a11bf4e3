"""What a run is asked to do: its data and checkpoint, looked at before anything heavy is imported."""

import argparse
import hashlib
import json
import os
import sys
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from emocaliber.prompts import PROMPTS, SYSTEM_PROMPT
from emocaliber.provenance import commit, file_sha256, installed_versions
from emocaliber.records import (
    Record,
    RecordError,
    is_invalid_record,
    read_records,
    read_records_keeping_invalid,
    record_images,
)
from inference.backends.backend import TAKES, Asking, Backend, Settings, Takes
from inference.backends.server import ServerBackend
from inference.backends.transformers_backend import TransformersBackend
from inference.backends.vllm_engine import Engine, prepare_environment, runs_on_cpu
from inference.runs.checkpoint import NO_CHECKPOINT, Checkpoint, open_checkpoint
from inference.runs.own_images import records_of_images
from inference.runs.run_folder import OUTPUT_FIELDS, utc_now

ROOM_FOR_TEXT_TOKENS = 2048
LONGEST_SECTION, LARGE_VOCABULARY = 400, 8192
PIXELS_PER_IMAGE_TOKEN = 28 * 28
BACKENDS: dict[str, type[Backend]] = {
    "vllm": Engine,
    "server": ServerBackend,
    "transformers": TransformersBackend,
}
DECIDING = (
    *("backend", "limit", "prompt", "constrain", "confidence", "temperature", "top_p", "max_new_tokens"),
    *("n_samples", "min_pixels", "max_pixels", "seed", "dtype", "server_url", "server_model"),
)


@dataclass
class Plan:
    """A run whose arguments, data and checkpoint have been looked at, before anything heavy is imported."""

    arguments: argparse.Namespace
    checkpoint: Checkpoint
    records: list[Record]
    image_root: Path
    images_per_row: int
    max_model_len: int
    identity: dict[str, Any]
    warnings: list[str]

    @property
    def model_name(self) -> str:
        """What the run calls its model."""
        arguments = self.arguments
        return str(arguments.checkpoint or arguments.server_model or arguments.server_url)

    @property
    def takes(self) -> Takes:
        """What its backend can do."""
        return TAKES[self.arguments.backend]

    @property
    def asking(self) -> Asking:
        """What is asked of every row."""
        return _filled(
            Asking,
            self.arguments,
            image_root=self.image_root,
            longest_section=_longest_section(self.checkpoint),
            confidences=tuple(self.arguments.confidence),
        )

    @property
    def settings(self) -> Settings:
        """What the backend is started from."""
        checkpoint = self.checkpoint
        return _filled(
            Settings,
            self.arguments,
            checkpoint=str(checkpoint.path or checkpoint.name),
            architectures=checkpoint.architectures,
            image_factor=checkpoint.image_factor,
            max_model_len=self.max_model_len,
            images_per_row=self.images_per_row,
        )

    def start_backend(self) -> Backend:
        """Load the checkpoint, or find the server. Raises EngineError, and RecordError for a mistake."""
        checkpoint, arguments = self.checkpoint, self.arguments
        if checkpoint.path is not None:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")
        prepare_environment(
            on_cpu=runs_on_cpu(), weights_bytes=checkpoint.weights_bytes, verbose=arguments.verbose
        )
        return BACKENDS[arguments.backend](self.settings, self.asking)

    @property
    def names(self) -> dict[str, str]:
        """What the user calls the things whose sums are in the identity."""
        source = self.arguments.data or self.arguments.images
        return {"checkpoint": self.model_name, "data": str(source.resolve())}


Fields = TypeVar("Fields", Asking, Settings)


def _filled(kind: type[Fields], arguments: argparse.Namespace, **others: Any) -> Fields:
    """Make a dataclass whose fields that are not among `others` are options of the same name."""
    names = {field.name for field in fields(kind)} - others.keys()
    return kind(**{name: getattr(arguments, name) for name in names}, **others)


def make_plan(arguments: argparse.Namespace) -> Plan:
    """Check everything a user can get wrong. Raises RecordError; writes nothing."""
    checkpoint = open_checkpoint(arguments.checkpoint) if arguments.checkpoint else NO_CHECKPOINT
    records, image_root = _read(arguments)
    records = [
        record
        if is_invalid_record(record)
        else {name: value for name, value in record.items() if name == "id" or name not in OUTPUT_FIELDS}
        for record in records[: arguments.limit]
    ]
    if not records:
        raise RecordError(f"{arguments.data}: no rows; give a file of JSON lines")
    if not image_root.is_dir():
        raise RecordError(f"{image_root}: no such folder; check --image-root")
    valid = [record for record in records if not is_invalid_record(record)]
    images_per_row = max((len(record_images(record)) for record in valid), default=1)
    max_model_len = choose_max_model_len(arguments, checkpoint, images_per_row)
    identity: dict[str, Any] = {
        "checkpoint": checkpoint.sha256 or checkpoint.name,
        "data": file_sha256(arguments.data)
        if arguments.data
        else hashlib.sha256(json.dumps(records).encode("ascii")).hexdigest(),
        "image_root": str(image_root.resolve()),
        "max_model_len": max_model_len,
    }
    identity |= {name: getattr(arguments, name) for name in DECIDING}
    if arguments.images is not None:
        identity |= {"task": arguments.task, "candidates": arguments.candidates}
    warnings = pixel_warnings(arguments, checkpoint)
    return Plan(arguments, checkpoint, records, image_root, images_per_row, max_model_len, identity, warnings)


def _read(arguments: argparse.Namespace) -> tuple[list[Record], Path]:
    """Give the rows and what their image paths are relative to."""
    if arguments.images is not None:
        candidates = None
        if arguments.candidates is not None:
            candidates = [label.strip() for label in arguments.candidates.split(",")]
        say = partial(print, file=sys.stderr)
        return records_of_images(arguments.images, task=arguments.task, candidates=candidates, say=say)
    image_root: Path = arguments.image_root or arguments.data.parent
    if arguments.keep_invalid:
        return read_records_keeping_invalid(arguments.data), image_root
    return read_records(arguments.data, need_truth=False), image_root


def _longest_section(checkpoint: Checkpoint) -> int | None:
    """Give the bound of a constrained section, None where counting its characters would cost too much.

    With the 151,000 tokens of Qwen2.5-VL a bound of 400 took 9 s to compile for each set of candidates and
    2 ms for each token of each row; without one a section can run on to the end of the response.
    """
    n_tokens = checkpoint.vocabulary
    return LONGEST_SECTION if n_tokens is not None and n_tokens <= LARGE_VOCABULARY else None


def choose_max_model_len(arguments: argparse.Namespace, checkpoint: Checkpoint, images_per_row: int) -> int:
    """Give the tokens of prompt and response that a row may have: as asked, else what the limits need."""
    most = checkpoint.max_positions
    asked: int | None = arguments.max_model_len
    if asked is not None:
        if most is not None and asked > most:
            raise RecordError(f"--max-model-len {asked}: {checkpoint.name} has {most} positions; lower it")
        return asked
    image_tokens = images_per_row * (arguments.max_pixels // PIXELS_PER_IMAGE_TOKEN)
    needed: int = image_tokens + ROOM_FOR_TEXT_TOKENS + arguments.max_new_tokens
    return needed if most is None else min(needed, most)


def pixel_warnings(arguments: argparse.Namespace, checkpoint: Checkpoint) -> list[str]:
    """Say so if images will be larger than the checkpoint's own image processor makes them."""
    own = checkpoint.own_max_pixels
    if own is None or own >= arguments.max_pixels:
        return []
    if own < arguments.min_pixels:
        what = f"every image will have at least {arguments.min_pixels} pixels"
    else:
        what = f"images may have up to {arguments.max_pixels} pixels"
    return [f"{what}; {checkpoint.name} was made for at most {own} (see --min-pixels, --max-pixels)"]


PACKAGES = ("vllm", "torch", "torchvision", "transformers", "tokenizers", "numpy", "pillow")


def describe_run(plan: Plan) -> dict[str, Any]:
    """Give run.json as it is when the run starts."""
    arguments, checkpoint = plan.arguments, plan.checkpoint
    shown = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
        if name not in ("worker", "handout", "command_line")
    }
    path = checkpoint.path.resolve() if checkpoint.path else None
    prompt = arguments.prompt
    question = "the messages of each record" if prompt is None else PROMPTS[prompt].question
    attempt: dict[str, Any] = {"status": "running", "started_at": utc_now(), "commit": commit()}
    attempt |= {"versions": installed_versions(PACKAGES), "device": "cpu" if runs_on_cpu() else "cuda"}
    return {
        "identity": plan.identity,
        "model": {
            "name": checkpoint.name,
            "path": path and str(path),
            "type": checkpoint.model_type,
            "sha256": checkpoint.sha256,
            "files_bytes": checkpoint.files,
        },
        "data": {"path": plan.names["data"], "sha256": plan.identity["data"], "rows": len(plan.records)},
        "pixels": {"min": arguments.min_pixels, "max": arguments.max_pixels},
        "prompt": {"name": prompt, "question": question, "system": SYSTEM_PROMPT},
        "attempts": [attempt | {"arguments": shown}],
    }
