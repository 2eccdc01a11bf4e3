"""Writes the model card of a finished stage, MODEL_DIR/README.md: what it was made from, how, with what.

    python train/checkpoints/model_card.py --model-dir OUTPUT_DIR/final --stage 1 --base MODEL \\
        --dataset FILE --settings FILE [--engine swift|verl] [--reward NAME] [--log FILE_OR_FOLDER] \\
        [-- flags of the run]

FILE_OR_FOLDER: a trainer_state.json, a log in JSON lines, or the output folder of ms-swift. The card names no
path of the machine: files by their name, folders by their last two names.
"""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError, write_text_atomic
from emocaliber.provenance import commit, file_sha256, installed_versions
from train.checkpoints.export import newest_swift_checkpoint
from train.preflight.begin import add_facts, changes_of
from train.preflight.variables import given_values, settings_files

STAGES = {
    "warmup": (
        "caption warm-up",
        "It names what is in a drawing; it is the base of stage 1, not a model to use.",
    ),
    "1": ("stage 1, structured reasoning", "It reasons in five sections and names an emotion."),
    "2": (
        "stage 2, verbalized confidence",
        "It reasons, names an emotion and states a confidence, which is not yet calibrated.",
    ),
    "3": (
        "stage 3, calibration by GRPO",
        "It reasons, names an emotion and states a confidence that was trained by reward to be honest.",
    ),
}
USED = {
    "Seed": {"swift": "seed", "verl": "data.seed"},
    "Learning rate": {"swift": "learning_rate", "verl": "actor_rollout_ref.actor.optim.lr"},
}
"""What the card says of the settings beside their text: names of each engine."""
PACKAGES = ("torch", "transformers", "ms-swift", "verl", "peft", "trl", "vllm")
LICENCES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "other",  # Qwen's research licence
    "Qwen/Qwen2.5-VL-7B-Instruct": "apache-2.0",
}
_FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)
_ABSOLUTE = re.compile(r"(?<![\w.~])~?(/[\w.@+-]+){2,}/?")


def main(argv: Sequence[str] | None = None) -> int:
    """Write the card; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument("--model-dir", type=Path, required=True)
    parser.add_argument("--log", type=Path, help="where the steps and the last loss are read")
    add_facts(parser)
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def work(arguments: Namespace) -> None:
    """Write the card. Raises RecordError and OSError."""
    if not (arguments.model_dir / "config.json").is_file():
        raise RecordError(f"{arguments.model_dir}: no config.json; give the folder of a finished model")
    write_text_atomic(arguments.model_dir / "README.md", card(arguments))
    print(f"{arguments.model_dir / 'README.md'}: the model card")


def card(args: Namespace) -> str:
    """The text of the card; `args` as in this file's head. Raises OSError for a file that cannot be read."""
    title, what = STAGES.get(args.stage, (f"stage {args.stage}", "It is the result of one training run."))
    origin = front_matter_of(Path(args.base) / "README.md")
    is_local = Path(args.base).is_dir()
    root = origin.get("base_model") if is_local else args.base
    licence = (
        origin.get("license") or LICENCES.get(args.base) or ("apache-2.0" if args.stage == "warmup" else None)
    )
    installed = installed_versions(PACKAGES)
    installed = {"Python": installed.pop("python")} | installed
    facts = {
        "Trained from": f"`{short(args.base)}`",
        "Data": describe_data(args.dataset, args.model_dir.parent / "rejected_rows.jsonl"),
        "Made by": f"`bash train/step{args.stage}_example.sh`" if args.stage in ("1", "2", "3") else None,
        "Engine": {"swift": "ms-swift", "verl": "verl"}[args.engine],
        "Reward": f"`{args.reward}` (`emocaliber/reward.py`)" if args.reward else None,
        **progress(args.log),
        **used(args),
        "Changed on the way": "; ".join(changes_of(args.model_dir.parent)) or None,
        "Date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "Code": code(),
        "Versions": ", ".join(f"{name} {version}" for name, version in installed.items() if version),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items() if value is not None)
    flags = without_paths(" ".join(short(flag) for flag in args.flags))
    return f"""---
{f"license: {licence}" if licence else "# license: that of the base model"}
{f"base_model: {root}" if root else "# base_model: none with a name on a hub"}
tags:
- visual-emotion-comprehension
- confidence-calibration
- stage-{args.stage}
pipeline_tag: image-text-to-text
library_name: transformers
---
# EmoCaliber, {title}

A Qwen2.5-VL trained by the EmoCaliber repository. {what}
Its opinion is about what an image may evoke in people, as the data sets label it; it says nothing about a
person's state and is not meant for decisions about people.

| | |
|---|---|
{rows}

Use it with the pixel limits it was trained with (`ENV` or the processor's limits below), for example
`CHECKPOINT=<this folder> bash inference/infer_and_eval_example.sh`.

## Settings

`{args.settings.name}`{f", with `{flags}`" if flags else ""}:

```yaml
{without_paths(settings_text(args.settings)).strip()}
```
"""


def settings_text(settings: Path) -> str:
    """The file; before it the ones that it extends, each under its name."""
    texts = {file.name: file.read_text(encoding="utf-8") for file in settings_files(settings)}
    if len(texts) == 1:
        return texts[settings.name]
    return "\n".join(f"# {name}\n{text}" for name, text in texts.items())


def short(name: str) -> str:
    """A path without the machine's part of it; a hub name and anything else as it is."""
    path = Path(name)
    return "/".join(path.parts[-2:]) if path.is_absolute() or path.exists() else name


def without_paths(text: str) -> str:
    """The text with every absolute path cut down to its last two names."""
    return _ABSOLUTE.sub(lambda found: "/".join(Path(found[0]).parts[-2:]), text)


def front_matter_of(readme: Path) -> dict[str, Any]:
    """The front matter of a model card; nothing where there is none."""
    found = _FRONT_MATTER.match(readme.read_text(encoding="utf-8")) if readme.is_file() else None
    return (yaml.safe_load(found[1]) if found else None) or {}


def describe_data(dataset: Path, rejected: Path) -> str:
    """Name, rows (of JSON lines) and sha256 of a file, and how many of its rows were left out."""
    rows = ""
    if dataset.suffix == ".jsonl":
        with dataset.open("rb") as file:
            rows = f"{sum(1 for _ in file)} rows, "
    if dataset.suffix == ".parquet":
        import pyarrow.parquet

        rows = f"{pyarrow.parquet.ParquetFile(dataset).metadata.num_rows} rows, "
    left_out = len(rejected.read_text(encoding="utf-8").splitlines()) if rejected.is_file() else 0
    without = f", {left_out} of them left out as bad" if left_out else ""
    return f"`{dataset.name}`, {rows}sha256 `{file_sha256(dataset)}`{without}"


def progress(log: Path | None) -> dict[str, Any]:
    """Steps, last loss and last mean reward of a log: those of them that it holds."""
    if log is not None and log.is_dir():
        checkpoint = newest_swift_checkpoint(log)
        log = checkpoint / "trainer_state.json" if checkpoint else None
    if log is None or not log.is_file():
        return {}
    found: dict[str, Any] = {}
    for row in logged_rows(log):
        data = row["data"] if isinstance(row.get("data"), dict) else row
        step = row.get(
            "step", data.get("global_step", str(data.get("global_step/max_steps", "")).split("/")[0])
        )
        loss = data.get("loss", data.get("train_loss", data.get("actor/pg_loss")))
        reward = data.get("reward", data.get("critic/score/mean"))
        for name, value in (("Steps", step), ("Last train loss", loss), ("Last mean reward", reward)):
            if value not in (None, ""):
                found[name] = f"{float(value):.4g}" if name != "Steps" else int(float(value))
    return found


def logged_rows(log: Path) -> list[dict[str, Any]]:
    """The rows of a trainer's state, or of a log in JSON lines; what is not a JSON object is passed over."""
    text = log.read_text(encoding="utf-8")
    if log.name == "trainer_state.json":
        state = json.loads(text)
        return [*state["log_history"], {"step": state["global_step"]}]
    rows = []
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def used(args: Namespace) -> dict[str, Any]:
    """Seed and learning rate, as a flag gives them, else as the settings do."""
    settings = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in settings_files(args.settings)]
    flags = given_values(args.engine, args.flags)
    found = {}
    for title, names in USED.items():
        name = names[args.engine]
        found[title] = flags.get(name)
        for value in reversed(settings):  # of a file before those that it extends
            for part in name.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if found[title] is None:
                found[title] = value
    return found


def code() -> str:
    """The commit of this repository, shortened, in words."""
    found = commit()
    if found is None:
        return "not from a git checkout"
    return f"commit `{found[:12]}`" + (" with changes" if found.endswith("+") else "")


if __name__ == "__main__":
    sys.exit(main())
