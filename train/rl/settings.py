"""The settings of a run of verl's GRPO: composed as verl does, no key that verl does not know or read."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emocaliber.jsonl import RecordError
from train.preflight.variables import settings_files

if TYPE_CHECKING:  # hydra and omegaconf take a while, and only runs of verl need them
    from omegaconf import DictConfig


OPEN = ("reward.custom_reward_function.reward_kwargs", "actor_rollout_ref.model.override_config", "hydra")
"""Keys below which any name is taken."""
LEGACY = ("custom_reward_function", "reward_model", "sandbox_fusion")
"""Sections that verl 0.9.1 composes and its trainer does not read."""
UNREAD = ("actor_rollout_ref.actor.freeze_vision_tower",)
"""Switches that verl 0.9.1 has in its schema and nowhere else."""


def compose(settings: Path, overrides: Sequence[str] = ()) -> DictConfig:
    """The config as verl's trainer gets it, without importing verl, which takes many seconds.

    Raises RecordError for settings or overrides that cannot be composed.
    """
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not settings.is_file():
        raise RecordError(f"{settings}: no such settings file; see train/settings")
    for override in overrides:
        if override.count("'") % 2:
            raise RecordError(f"{override}: verl's keys cannot hold an apostrophe; rename the file or folder")
    try:
        with hydra.initialize_config_dir(str(settings.parent.resolve()), version_base=None):
            where = f"hydra.searchpath=['file://{verl_config_dir()}']"
            return hydra.compose(settings.stem, overrides=[where, *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise RecordError(f"{settings}: {error}; correct the key or its value") from None


def verl_config_dir() -> Path:
    """The folder of verl's own yaml files."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise RecordError("verl is not installed; start through train/step3_example.sh")
    return Path(next(iter(spec.submodule_search_locations))) / "trainer" / "config"


def check_keys(settings: Path, config: DictConfig) -> None:
    """Raise RecordError for a key that verl does not know, or composes and does not read.

    hydra itself holds overrides against the schema, but takes any key that a yaml file adds.
    """
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(verl_config_dir()), version_base=None):
        known = hydra.compose("ppo_trainer")
    for name in LEGACY:
        if config[name] != known[name]:
            raise RecordError(f"verl composes {name} and ignores it; set reward.{name} instead")
    for key in UNREAD:
        if OmegaConf.select(config, key):
            raise RecordError(f"verl 0.9.1 takes {key} and does nothing; leave it out")
    for file in settings_files(settings):
        for key in keys_of(OmegaConf.load(file)):
            if not key.startswith((*OPEN, "defaults")) and not is_known(known, key):
                raise RecordError(f"{file}: verl knows no {key}; correct the name")


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """The dotted names of all leaves."""
    from omegaconf import DictConfig

    if isinstance(node, DictConfig) and len(node):
        for key in node:
            yield from keys_of(node._get_node(key), f"{prefix}.{key!s}" if prefix else str(key))
    else:
        yield prefix


def is_known(known: DictConfig, key: str) -> bool:
    """Is the key in verl's yaml, a field of its section's dataclass, or below an open section?"""
    from omegaconf import DictConfig

    node: Any = known
    for part in key.split("."):
        if not isinstance(node, DictConfig):
            return False  # a value, where the key goes on
        if not len(node):
            return True  # open
        if part not in node:
            return part in dataclass_fields(node)
        node = node._get_node(part)
    return True


def dataclass_fields(section: DictConfig) -> set[str]:
    """The fields of the dataclass that verl makes of a section; its yaml leaves some of them out."""
    from hydra.utils import get_class

    target = section.get("_target_")
    return {field.name for field in dataclasses.fields(get_class(target))} if target else set()


def check_config(config: DictConfig) -> None:
    """verl's own validation and its dataclasses. Raises RecordError."""
    from hydra.errors import InstantiationException
    from omegaconf import open_dict
    from verl.trainer.ppo.utils import need_critic, need_reference_policy
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    try:
        validate_config(config, need_reference_policy(config), need_critic(config))
        for section in ("actor", "rollout", "model"):
            omega_conf_to_dataclass(config.actor_rollout_ref[section])
        reference = config.actor_rollout_ref.ref.copy()
        with open_dict(reference):  # as verl's worker renames them
            for old in ("log_prob_micro_batch_size", "log_prob_micro_batch_size_per_gpu"):
                reference[old.replace("log_prob", "ppo")] = reference.pop(old)
            reference.use_dynamic_bsz = reference.pop("log_prob_use_dynamic_bsz")
            reference.ppo_max_token_len_per_gpu = reference.pop("log_prob_max_token_len_per_gpu")
        omega_conf_to_dataclass(reference)
    except (AssertionError, ValueError, TypeError, InstantiationException) as error:
        raise RecordError(f"verl refuses the settings: {error}") from None
    check_batches(config)


def check_batches(config: DictConfig) -> None:
    """Whole micro-batches on every GPU; verl notices only after the first rollouts. Raises RecordError."""
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    if actor.use_dynamic_bsz:
        return
    gpus = config.trainer.n_gpus_per_node * config.trainer.nnodes
    of_step = config.data.train_batch_size * rollout.n
    per_gpu = "micro_batch_size_per_gpu"
    for name, micro, rollouts in (
        (f"actor.ppo_{per_gpu}", actor[f"ppo_{per_gpu}"], actor.ppo_mini_batch_size * rollout.n),
        (f"rollout.log_prob_{per_gpu}", rollout[f"log_prob_{per_gpu}"], of_step),
        (f"ref.log_prob_{per_gpu}", config.actor_rollout_ref.ref[f"log_prob_{per_gpu}"], of_step),
    ):
        if micro and rollouts % (micro * gpus):
            raise RecordError(
                f"actor_rollout_ref.{name}={micro}: {rollouts} rollouts on {gpus} GPUs do not make whole "
                "micro-batches; give a divisor"
            )
