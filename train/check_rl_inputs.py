"""Checks the settings, the model and the data of a run of verl's GRPO, before anything heavy starts.

    python train/check_rl_inputs.py --settings train/settings/stage3_mini.yaml -- KEY=VALUE ...

After `--` come the overrides that verl gets; model, data and output folder are read from them. Checked are
the versions, that verl knows every key, the machine, verl's own validation, the reward on a sample, and rows
of the data through verl's dataset and the model's processor. The first mistake is named, with status 2.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from emocaliber.command_line import CommandParser

if TYPE_CHECKING:
    from omegaconf import DictConfig

FILES = ("train_files", "val_files")


def main() -> None:
    """Check, or name the first mistake and exit with 2."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--settings", type=Path, required=True, help="a hydra config that extends ppo_trainer"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    args = parser.parse_args()
    from emocaliber.jsonl import RecordError

    try:
        found = check(args.settings, args.overrides)
    except (RecordError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
    print("\n".join(found))


def check(settings: Path, overrides: Sequence[str]) -> list[str]:
    """Give what was found, in lines. Raises RecordError, the cheap checks first."""
    from estimate_memory import shape_of
    from rl_batch import check_rows, count_rows
    from rl_machine import check_machine
    from rl_settings import check_config, check_keys, compose
    from sft_machine import check_model, check_versions

    from emocaliber.jsonl import RecordError

    check_versions()
    config = compose(settings, overrides)
    shape = shape_of(check_model(config.actor_rollout_ref.model.path))
    paths = [config.data[name] for name in FILES]
    counts = [count_rows(path) for path in paths]
    if counts[0] < config.data.train_batch_size:
        raise RecordError(
            f"{paths[0]}: {counts[0]} rows, a step takes {config.data.train_batch_size}; give more, or lower "
            "data.train_batch_size"
        )
    machine = check_machine(config, shape)
    with quiet():
        check_keys(settings, config)
        check_config(config)
        check_reward(config)
        encoded = [check_rows(path, config) for path in paths]
    rows = zip(paths, counts, encoded, strict=True)
    return [machine, *(f"{path}: {count} rows, {words}" for path, count, words in rows)]


def check_reward(config: DictConfig) -> None:
    """Load the reward as verl does and score a well-formed answer. Raises RecordError."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    from emocaliber.jsonl import RecordError
    from emocaliber.response import SECTIONS, render
    from emocaliber.reward import REWARD_KEYS
    from emocaliber.reward_log import check_writable

    config = config.copy()
    arguments = config.reward.custom_reward_function.get("reward_kwargs") or {}
    try:
        if arguments.get("log"):
            check_writable(arguments["log"])
            arguments["log"] = None  # the sample is no rollout
        compute_score = get_custom_reward_fn(config)
        if compute_score is None:
            raise RecordError("reward.custom_reward_function.path is not set; give train/verl_reward.py")
        answer = render({section: "A sample." for section in SECTIONS}, "awe", "0.8")
        result = compute_score(
            data_source="EmoSet-8",
            solution_str=answer,
            ground_truth="awe",
            extra_info={"candidates": ["awe", "fear"]},
        )
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise RecordError(f"reward {arguments.get('reward')}: {error}") from None
    if set(result) != set(REWARD_KEYS) or result["format"] != 1 or result["correct"] != 1:
        raise RecordError(f"reward {arguments.get('reward')}: a right, well-formed answer got {result}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the frameworks print from the output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


if __name__ == "__main__":
    main()
