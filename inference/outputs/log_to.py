"""Hands the results of an evaluation to Weights & Biases, TensorBoard or SwanLab, without a network.

Each tool is optional and imported when it is used. What they write lies in `logs/` of the output folder.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_PROJECT = "emocaliber"
_NO_SCORES = {"unparsed_reasons", "failed_reasons", "no_confidence_reasons", "flags", "faults", "n_tasks"}
_THRESHOLD_SCORES = ("acc", "f1", "coverage")
_RESERVED = ("overall", "group", "samples", "paper", "figures")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Give a command the option `--log-to`, a list of tools."""
    parser.add_argument(
        "--log-to",
        action="append",
        choices=TOOLS,
        default=[],
        help="also log every score and figure to this tool, into logs/ of the output folder, offline unless "
        "WANDB_MODE or SWANLAB_MODE says otherwise; may be given several times",
    )


def require_installed(parser: argparse.ArgumentParser, tools: Sequence[str]) -> None:
    """End the command with one line and status 2 if a tool is not installed. Imports none of them."""
    for tool in tools:
        found = importlib.util.find_spec(tool)
        # A folder of that name on the path, as `logs/wandb`, is found too, as a namespace without an origin.
        if found is None or found.origin is None:
            parser.exit(
                2, f"error: --log-to {tool}: the package {tool} is not installed; pip install {tool}\n"
            )


def log_to_each(tools: Sequence[str], output_dir: Path, written: Sequence[str]) -> int:
    """Log what an evaluation has written to each tool; one that fails is told in one line.

    Args:
        tools: of `TOOLS`.
        output_dir: its own name is the name of the run.
        written: the names of the files there that are of this evaluation.
    Returns:
        The exit status: 0, or 1 if a tool has failed.
    """
    status = 0
    for tool in dict.fromkeys(tools):
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what the tools say is no result
                folder = log_to(tool, output_dir, written)
        except Exception as error:  # whatever a tool raises: the results are there all the same
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"error: --log-to {tool}: {reason}; the results are in {output_dir}", file=sys.stderr)
            status = 1
        else:
            print(f"Logged to {folder}")
    return status


def log_to(tool: str, output_dir: Path, written: Sequence[str]) -> Path:
    """Log every score of metrics.json and every PNG figure; gives the folder in which the log lies.

    Raises whatever the tool raises.
    """
    scores = scores_by_name(json.loads((output_dir / "metrics.json").read_text(encoding="utf-8")))
    figures = {Path(name).stem: output_dir / name for name in written if name.endswith(".png")}
    folder = output_dir / "logs" / tool
    folder.mkdir(parents=True, exist_ok=True)
    _LOGGERS[tool](output_dir.resolve().name, folder, scores, figures)
    return folder


def scores_by_name(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Every score of `metrics.json` that is defined, as a fraction, and every count of rows.

    `TASK/ece`, `group/ID VER/ece` and `overall/ece` over the rows, `group/ID VER/task_mean/ece` and
    `overall/task_mean/ece` as the mean over the tasks; `…/acc_at_0.5` at a confidence threshold,
    `…/null_ece/mean`, `…/truth/bayes_acc`; `samples/…` of rows with several samples; `paper/…` by the
    published evaluator's arithmetic. A task that is called like one of these has its names under `task/`.
    """
    only_paper = metrics["protocol"] == "paper"
    found = {} if only_paper else dict(_scores_of_protocol(metrics))
    paper = metrics if only_paper else metrics.get("paper", {})
    return found | {f"paper/{name}": score for name, score in _scores_of_protocol(paper)}


def _scores_of_protocol(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for task, summary in metrics.get("tasks", {}).items():
        name = task.replace("/", "_")  # a slash divides names
        yield from _numbers(f"task/{name}" if name in _RESERVED else name, summary)
    pooled = {f"group/{name}": group for name, group in metrics.get("groups", {}).items()}
    if "overall" in metrics:
        pooled["overall"] = metrics["overall"]
    for name, group in pooled.items():
        yield from _numbers(name, group.get("samples", group))
        yield from _numbers(f"{name}/task_mean", group.get("task_mean", {}))
    yield from _numbers("samples", metrics.get("samples", {}))


def _numbers(name: str, content: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in content.items():
        if isinstance(value, int | float):
            yield f"{name}/{key}", value
        elif isinstance(value, Mapping) and key not in _NO_SCORES:
            yield from _numbers(f"{name}/{key}", value)
    for row in content.get("thresholds", ()):
        for score in _THRESHOLD_SCORES:
            if row[score] is not None:
                yield f"{name}/{score}_at_{row['threshold']}", row[score]


Logger = Callable[[str, Path, Mapping[str, float], Mapping[str, Path]], None]
"""Takes the name of the run, the folder of the log, the scores, and the figures by name."""


def _log_to_wandb(name: str, folder: Path, scores: Mapping[str, float], figures: Mapping[str, Path]) -> None:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # else it reports its own crashes to its maker
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_meta=True,
    )
    mode: Any = os.environ.get("WANDB_MODE", "offline")
    # It makes a folder `wandb` in the one that it is given.
    run = wandb.init(project=_PROJECT, name=name, dir=folder.parent, mode=mode, settings=settings)
    with run:
        run.log({**scores, **{f"figures/{stem}": wandb.Image(str(path)) for stem, path in figures.items()}})


def _log_to_tensorboard(
    name: str, folder: Path, scores: Mapping[str, float], figures: Mapping[str, Path]
) -> None:
    # The writer of tensorboard itself; that of torch.utils is the same one, behind an import of torch.
    from PIL import Image
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    values = [Summary.Value(tag=tag, simple_value=score) for tag, score in scores.items()]
    for stem, path in figures.items():
        content = path.read_bytes()
        width, height = Image.open(io.BytesIO(content)).size
        image = Summary.Image(height=height, width=width, colorspace=4, encoded_image_string=content)
        values.append(Summary.Value(tag=f"figures/{stem}", image=image))
    # The files of an earlier evaluation would be drawn into the same curves.
    outdated = list((folder / name).glob("events.out.tfevents.*"))
    writer = EventFileWriter(str(folder / name))
    writer.add_event(Event(wall_time=time.time(), step=0, summary=Summary(value=values)))
    writer.close()
    for path in outdated:
        path.unlink()


def _log_to_swanlab(
    name: str, folder: Path, scores: Mapping[str, float], figures: Mapping[str, Path]
) -> None:
    import swanlab

    mode = os.environ.get("SWANLAB_MODE", "offline")
    swanlab.init(project=_PROJECT, experiment_name=name, logdir=str(folder), mode=mode)
    try:
        pictures = {f"figures/{stem}": swanlab.Image(str(path)) for stem, path in figures.items()}
        swanlab.log({**scores, **pictures})
    finally:
        swanlab.finish()


_LOGGERS: dict[str, Logger] = {
    "wandb": _log_to_wandb,
    "tensorboard": _log_to_tensorboard,
    "swanlab": _log_to_swanlab,
}
TOOLS = tuple(_LOGGERS)
