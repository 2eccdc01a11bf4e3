"""Checks the settings, the model and the data of a run of verl's GRPO, before anything heavy starts.

    python train/rl/check_inputs.py --settings train/settings/stage3_mini.yaml -- KEY=VALUE ...

After `--` come the overrides that verl gets; model, data and output folder are read from them. Checked are
the versions, that verl knows every key, the machine, verl's own validation, the reward on a sample, and rows
of the data through verl's dataset and the model's processor. The first mistake is named, with status 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emocaliber.command_line import CommandParser, run_command
from emocaliber.jsonl import RecordError
from emocaliber.response import SECTIONS, render
from emocaliber.reward import REWARD_KEYS
from emocaliber.reward_log import check_writable
from train.preflight.machine import check_machine, check_model, check_versions
from train.rl.settings import check_config, check_keys, compose

if TYPE_CHECKING:  # omegaconf takes a while
    from omegaconf import DictConfig

FILES = ("train_files", "val_files")
N_SAMPLED = 16
"""Rows, spread over a file, that are read and encoded."""


def main(argv: Sequence[str] | None = None) -> int:
    """Check; give the exit status."""
    parser = CommandParser(description=__doc__)
    parser.add_argument(
        "--settings", type=Path, required=True, help="a hydra config that extends ppo_trainer"
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_args(argv)
    return run_command(lambda: work(arguments))


def work(arguments: Namespace) -> None:
    """Check, the cheap things first, and say what was found. Raises RecordError."""
    check_versions()
    settings = arguments.settings
    config = compose(settings, arguments.overrides)
    model, trainer = config.actor_rollout_ref.model, config.trainer
    n_weights = check_model(model.path)
    paths = [config.data[name] for name in FILES]
    counts = [count_rows(path) for path in paths]
    if counts[0] < config.data.train_batch_size:
        raise RecordError(
            f"{paths[0]}: {counts[0]} rows, a step takes {config.data.train_batch_size}; give more, or lower "
            "data.train_batch_size"
        )
    machine = check_machine(
        Path(trainer.default_local_dir),
        0 if trainer.device == "cpu" else trainer.n_gpus_per_node,
        0 if model.lora_rank else n_weights,
        trainer.max_actor_ckpt_to_keep or 1,
    )
    with quiet():
        check_keys(settings, config)
        check_config(config)
        check_reward(config)
        encoded = [check_rows(path, config) for path in paths]
    print(machine)
    for path, count, words in zip(paths, counts, encoded, strict=True):
        print(f"{path}: {count} rows, {words}")


def count_rows(path: str) -> int:
    """The rows of a Parquet file. Raises RecordError for none, and for a file that is none."""
    import pyarrow
    import pyarrow.parquet as pq

    remedy = "make it with data/build_rl_parquet.py"
    try:
        count: int = pq.ParquetFile(path).metadata.num_rows
    except FileNotFoundError:
        raise RecordError(f"{path} is missing; {remedy}") from None
    except pyarrow.ArrowInvalid as error:
        raise RecordError(f"{path}: no Parquet file ({error}); {remedy}") from None
    if not count:
        raise RecordError(f"{path}: no rows; {remedy}")
    return count


def check_rows(path: str, config: DictConfig) -> str:
    """Some rows through verl's dataset and the model's processor. Raises RecordError.

    Gives, in words, the numbers of image tokens and of tokens of the prompts.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import verl.utils.tokenizer
    from omegaconf import open_dict
    from verl.trainer.ppo.utils import create_rl_dataset
    from verl.utils.dataset.rl_dataset import collate_fn

    loaders: Any = verl.utils.tokenizer
    model = config.actor_rollout_ref.model.path
    tokenizer, processor = loaders.hf_tokenizer(model), loaders.hf_processor(model)
    with tempfile.TemporaryDirectory() as folder, open_dict(config):
        sample = str(Path(folder) / "sample.parquet")
        file = pq.ParquetFile(path)
        groups = sorted({index * file.num_row_groups // N_SAMPLED for index in range(N_SAMPLED)})
        parts = [next(file.iter_batches(max(1, N_SAMPLED // len(groups)), row_groups=[g])) for g in groups]
        pq.write_table(pa.Table.from_batches(parts), sample)
        try:
            data = config.data.copy()
            data.filter_overlong_prompts, data.cache_dir = False, folder
            dataset = create_rl_dataset(sample, data, tokenizer, processor, is_train=False)
            rows = [dataset[index] for index in range(len(dataset))]
            collate_fn(rows)
            lengths = [encode(row, config, tokenizer, processor) for row in rows]
        except (AssertionError, KeyError, OSError, TypeError, ValueError) as error:
            raise RecordError(
                f"{path}: verl cannot read it ({type(error).__name__}: {error}); make it with "
                "data/build_rl_parquet.py"
            ) from None
    return describe(lengths, config, path)


def describe(lengths: Sequence[tuple[int, int]], config: Mapping[str, Any], path: str) -> str:
    """Hold (tokens, image tokens) of prompts against the limit. Raises RecordError if they are over it."""
    limit = config["data"]["max_prompt_length"]
    n_over = sum(total > limit for total, _ in lengths)
    is_dropped = config["data"]["filter_overlong_prompts"]
    if n_over == len(lengths) or (n_over and not is_dropped):
        raise RecordError(
            f"{path}: {n_over} of {len(lengths)} prompts are longer than {limit} tokens, up to "
            f"{max(total for total, _ in lengths)}; raise data.max_prompt_length, or give --max-pixels to "
            "data/build_rl_parquet.py"
        )
    few, many = min(image for _, image in lengths), max(image for _, image in lengths)
    images = f"{few} image tokens" if few == many else f"{few} to {many} image tokens"
    words = f"{images} a prompt, which has up to {max(total for total, _ in lengths)} tokens of {limit}"
    return words + (f"; {n_over} of {len(lengths)} are over it and will be left out" if n_over else "")


def encode(row: Mapping[str, Any], config: DictConfig, tokenizer: Any, processor: Any) -> tuple[int, int]:
    """Tokens of a prompt as the rollout will get it, and the image tokens among them.

    Raises ValueError where these are not as many as the pixels make.
    """
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

    patch = processor.image_processor.patch_size
    images, videos, audios = asyncio.run(
        RLHFDataset.process_multi_modal_info(row["raw_prompt"], patch, config.data)
    )
    builder = create_continuous_token_builder(
        tokenizer,
        hf_model_type="qwen2_5_vl",
        chat_template_kwargs={},
        mm_processor_kwargs={},
        processor=processor,
    )
    features: dict[str, Any] = {}
    ids = builder.build_initial_tokens(
        row["raw_prompt"], images=images, videos=videos, audios=audios, mm_inputs_out=features
    )
    n_image = ids.count(processor.image_token_id)
    n_made = int(features["image_grid_thw"].prod(dim=1).sum()) // processor.image_processor.merge_size**2
    if n_image != n_made:
        raise ValueError(f"{n_image} image tokens where the pixels make {n_made}")
    return len(ids), n_image


def check_reward(config: DictConfig) -> None:
    """Load the reward as verl does and score a well-formed answer. Raises RecordError."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    config = config.copy()
    arguments = config.reward.custom_reward_function.get("reward_kwargs") or {}
    try:
        if arguments.get("log"):
            check_writable(arguments["log"])
            arguments["log"] = None  # the sample is no rollout
        compute_score = get_custom_reward_fn(config)
        if compute_score is None:
            raise RecordError("reward.custom_reward_function.path is not set; give train/rl/verl_reward.py")
        answer = render({section: "A sample." for section in SECTIONS}, "awe", 0.8)
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
    sys.exit(main())
