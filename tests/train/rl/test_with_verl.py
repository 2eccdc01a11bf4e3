"""What needs verl in this process, in one file, so that one worker imports it: its settings, inputs, reward,
and the CPU platform with its rollout, whose batches answer as single prompts would."""

import asyncio
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emocaliber.jsonl import RecordError
from emocaliber.reward import compute_reward
from emocaliber.reward_log import read_reward_log
from train.rl import check_inputs
from train.rl.settings import check_config, check_keys, compose

ROOT = Path(__file__).parents[3]
FILE = ROOT / "train" / "rl" / "verl_reward.py"
MODEL = ROOT / "models" / "EmoCaliber-mini"
MODEL_KEY = f"actor_rollout_ref.model.path={MODEL}"
SIZES = ("mini", "7b_8gpu", "7b_lora_1gpu", "3b_2gpu")
pytestmark = pytest.mark.slow


def settings(size: str) -> Path:
    return ROOT / "train" / "settings" / f"stage3_{size}.yaml"


def changed(tmp_path: Path, size: str, more: str) -> Path:
    path = tmp_path / "changed.yaml"
    path.write_text(settings(size).read_text() + more)
    return path


@pytest.mark.parametrize("size", SIZES)
def test_verl_knows_every_key_and_takes_the_values(size: str) -> None:
    config = compose(settings(size), [MODEL_KEY])
    check_keys(settings(size), config)
    check_config(config)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("  no_such_key: 1\n", "verl knows no trainer.no_such_key"),
        ("  save_freq_steps: {every: 1}\n", "verl knows no trainer.save_freq_steps.every"),
        ("custom_reward_function: {path: x.py}\n", "composes custom_reward_function and ignores it"),
        ("reward_model: {reward_manager: dapo}\n", "composes reward_model and ignores it"),
    ],
)
def test_a_key_that_would_be_ignored_is_refused(tmp_path: Path, more: str, message: str) -> None:
    path = changed(tmp_path, "mini", more)
    with pytest.raises(RecordError, match=message):
        check_keys(path, compose(path, [MODEL_KEY]))


def test_a_switch_that_does_nothing_is_refused() -> None:
    config = compose(settings("mini"), [MODEL_KEY, "actor_rollout_ref.actor.freeze_vision_tower=true"])
    with pytest.raises(RecordError, match="freeze_vision_tower and does nothing"):
        check_keys(settings("mini"), config)


def test_the_old_override_of_the_reward_is_refused() -> None:
    config = compose(settings("mini"), [MODEL_KEY, "custom_reward_function.path=x.py"])
    with pytest.raises(RecordError, match=r"set reward\.custom_reward_function instead"):
        check_keys(settings("mini"), config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train_batch_size=4", "must be >= actor.ppo_mini_batch_size"),
        ("actor_rollout_ref.rollout.mode=sync", "sync"),
        ("+actor_rollout_ref.actor.no_such_field=1", "no_such_field"),
        ("actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=null", "log_prob_micro_batch_size"),
        (
            "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=48",
            "ref.*=48: 128 rollouts on 1 GPUs do not",
        ),
        ("actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24", "actor.ppo_micro.*=24: 128 rollouts"),
        ("trainer.n_gpus_per_node=16", "128 rollouts on 16 GPUs do not make whole micro-batches"),
    ],
)
def test_values_that_verl_would_refuse_now_or_later(override: str, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        check_config(compose(settings("mini"), [MODEL_KEY, override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("++reward.custom_reward_function.reward_kwargs.reward=none", "no reward is called 'none'"),
        ("reward.custom_reward_function.path=/no/where.py", "reward brier: "),
        ("++reward.custom_reward_function.reward_kwargs.log=/proc/no/log", "cannot be written"),
        ("custom_reward_function.path=x.py", "set reward.custom_reward_function instead"),
        ("data.max_prompt_length=20", "16 of 16 prompts are longer than 20 tokens, up to"),
        (
            "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=24",
            "128 rollouts on 1 GPUs do not make whole micro-batches",
        ),
    ],
)
def test_what_verl_would_refuse_or_ignore(
    tmp_path: Path, parquet: Path, keys_of: Callable[..., list[str]], override: str, message: str
) -> None:
    with pytest.raises(RecordError) as error:
        check_inputs.work(
            Namespace(settings=settings("mini"), overrides=keys_of(tmp_path, parquet, override))
        )
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("images", [{"bytes": b"no picture"}]),
        ("images", []),
        ("prompt", [{"role": "user", "content": "<image><image>Which?"}]),
    ],
)
def test_rows_that_verl_cannot_read(
    tmp_path: Path, parquet: Path, keys_of: Callable[..., list[str]], column: str, value: Any
) -> None:
    rows = pq.read_table(parquet).to_pylist()
    rows[3][column] = value
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "bad.parquet")
    with pytest.raises(RecordError) as error:
        check_inputs.work(
            Namespace(
                settings=settings("mini"), overrides=keys_of(tmp_path, parquet, val=tmp_path / "bad.parquet")
            )
        )
    message = str(error.value)
    assert (
        "bad.parquet: verl cannot read it" in message and "make it with data/build_rl_parquet.py" in message
    )


def config_of(reward: str, log: Path) -> Any:
    """verl's own config with our reward in it."""
    import hydra
    import verl

    folder = Path(verl.__file__).parent / "trainer" / "config"
    with hydra.initialize_config_dir(str(folder), version_base=None):
        return hydra.compose(
            "ppo_trainer",
            overrides=[
                "actor_rollout_ref.rollout.name=vllm",
                f"actor_rollout_ref.model.path={MODEL}",
                f"reward.custom_reward_function.path={FILE}",
                f"+reward.custom_reward_function.reward_kwargs.reward={reward}",
                f"+reward.custom_reward_function.reward_kwargs.log={log}",
            ],
        )


def as_verl_hands_it(row: dict[str, Any], tokenizer: Any) -> Any:
    """One response as verl's agent loop hands it to the reward."""
    import numpy as np
    import torch
    from verl import DataProto

    tokens = [*tokenizer(row["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    fields = {
        "data_source": row["task"],
        "reward_model": {"style": "rule", "ground_truth": row["ground_truth"]},
        "extra_info": {"id": row["id"], "candidates": row["candidates"], "split": "train"},
        "tool_extra_fields": {"global_steps": 3},
    }
    return DataProto.from_dict(
        tensors={
            "prompts": torch.zeros(1, 2, dtype=torch.long),
            "responses": torch.tensor([tokens]),
            "attention_mask": torch.ones(1, 2 + len(tokens), dtype=torch.long),
        },
        non_tensors={name: np.array([value], dtype=object) for name, value in fields.items()},
    )


@pytest.mark.parametrize("way", ["naive", "dapo", "worker"])
def test_the_library_s_numbers_by_every_way_of_verl(
    tmp_path: Path, way: str, thousand_responses: list[dict[str, Any]]
) -> None:
    from verl.experimental.reward_loop import RewardLoopWorker
    from verl.trainer.ppo.reward import load_reward_manager
    from verl.utils import hf_tokenizer

    tokenizer = hf_tokenizer(str(MODEL))
    log = tmp_path / "rewards.jsonl"
    config = config_of("brier" if way == "naive" else "emocaliber", log)
    if way == "worker":
        worker = RewardLoopWorker(config)
        loop, score = worker.loop, worker.compute_score
    else:
        config.reward.reward_manager.name = way
        manager = load_reward_manager(config, tokenizer)
        loop, score = manager.loop, manager.run_single

    rows = thousand_responses

    async def all_scores() -> list[dict[str, Any]]:
        return await asyncio.gather(*(score(as_verl_hands_it(row, tokenizer)) for row in rows))

    results = loop.run_until_complete(all_scores())
    reward = config.reward.custom_reward_function.reward_kwargs.reward
    texts = [tokenizer.decode(tokenizer(row["response"])["input_ids"]) for row in rows]
    expected = [
        compute_reward(text, row["ground_truth"], row["candidates"], reward)
        for text, row in zip(texts, rows, strict=True)
    ]
    assert [result["reward_extra_info"] for result in results] == expected
    assert [result["reward_score"] for result in results] == [one["score"] for one in expected]
    assert len({one["score"] for one in expected}) > 20 and 0 < sum(one["format"] for one in expected) < 1000
    logged = list(read_reward_log(log))
    assert sorted(row["id"] for row in logged) == sorted(row["id"] for row in rows)
    assert {row["step"] for row in logged} == ({None} if way == "dapo" else {3})


@pytest.fixture(scope="module")
def rollout() -> Any:
    """train/rl/verl_cpu_rollout.py, which imports verl."""
    from train.rl import verl_cpu_rollout

    return verl_cpu_rollout


@pytest.fixture(scope="module")
def generator(rollout: Any) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.set_num_threads(1)  # more would wait for each other where others compute as well
    model = AutoModelForImageTextToText.from_pretrained(
        MODEL, dtype=torch.float32, attn_implementation="sdpa"
    )
    return rollout.Generator(model, AutoProcessor.from_pretrained(MODEL), seed=0)


@pytest.fixture(scope="module")
def requests(rollout: Any, generator: Any) -> list[Any]:
    """Prompts of two lengths about pictures that differ."""
    from PIL import Image

    from emocaliber.prompts import user_prompt

    made = []
    for number, labels in enumerate(
        [["awe", "fear"], ["positive", "negative"], ["awe", "fear", "sadness"]] * 2
    ):
        image = Image.effect_noise((112, 112), 20 + 30 * number).convert("RGB")
        content = [{"type": "image", "image": image}, {"type": "text", "text": user_prompt(labels)}]
        inputs = generator.processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
        )
        ids = inputs["input_ids"]
        made.append(rollout.Request(ids[0] if isinstance(ids[0], list) else ids, [image], (1.0, 1.0, -1), 60))
    assert len({len(request.prompt_ids) for request in made}) > 1, "padding would not be tested"
    return made


def actor_log_probs(generator: Any, request: Any, answer: list[int]) -> list[float]:
    """Log-probabilities of an answer by one forward pass over prompt and answer, unpadded: the actor's."""
    import torch

    ids = torch.tensor([[*request.prompt_ids, *answer]])
    pixels = generator.processor.image_processor(images=list(request.images), return_tensors="pt")
    is_image = (ids == generator.model.config.image_token_id).int()
    with torch.no_grad():
        logits = generator.model(
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=is_image, **pixels
        ).logits
    scaled = torch.log_softmax(logits[0, len(request.prompt_ids) - 1 : -1] / request.sampling[0], dim=-1)
    return [float(row[token]) for row, token in zip(scaled, answer, strict=True)]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_log_probabilities_are_the_actor_s(generator: Any, requests: list[Any], temperature: float) -> None:
    batch = [replace(request, sampling=(temperature, 1.0, -1)) for request in requests]
    for request, (answer, log_probs) in zip(batch, generator.answer(batch), strict=True):
        assert 0 < len(answer) <= 60 and len(log_probs) == len(answer)
        assert log_probs == pytest.approx(actor_log_probs(generator, request, answer), abs=1e-4)


def test_a_greedy_batch_answers_as_single_prompts_do(generator: Any, requests: list[Any]) -> None:
    batch = [replace(request, sampling=(0.0, 1.0, -1)) for request in requests]
    alone = [generator.answer([request])[0][0] for request in batch]
    assert [answer for answer, _ in generator.answer(batch)] == alone


def test_the_seed_and_the_version_of_the_weights_decide_the_sample(
    generator: Any, requests: list[Any]
) -> None:
    weights = {name: tensor.clone() for name, tensor in generator.model.state_dict().items()}

    def sample(version: int) -> list[list[int]]:
        generator.load_weights(weights, version)
        return [answer for answer, _ in generator.answer(requests)]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_temperature_is_respected(generator: Any, requests: list[Any]) -> None:
    import torch

    def mean_log_prob(temperature: float) -> float:
        """Of what is sampled, under the model itself: the hotter, the less likely."""
        torch.manual_seed(0)
        batch = [replace(request, sampling=(temperature, 1.0, -1)) for request in requests * 3]
        answers = generator.answer(batch)
        scored = [
            sum(actor_log_probs(generator, request, answer)) / len(answer)
            for request, (answer, _) in zip(requests * 3, answers, strict=True)
        ]
        return sum(scored) / len(scored)

    assert mean_log_prob(0.2) > mean_log_prob(1.0) > mean_log_prob(3.0)


def test_an_answer_ends_with_its_end_token_or_its_own_limit(generator: Any, requests: list[Any]) -> None:
    short = replace(requests[0], max_new_tokens=7)
    long = replace(requests[1], max_new_tokens=200)
    (first, _), (second, _) = generator.answer([short, long])
    assert len(first) == 7
    assert second[-1] in generator.eos_ids
    assert not set(second[:-1]) & generator.eos_ids


def test_vision_placeholders_are_never_sampled(generator: Any, requests: list[Any]) -> None:
    import torch

    config = generator.model.config
    assert {config.image_token_id, config.video_token_id} <= set(generator.suppressed)
    favoured = torch.zeros(config.text_config.vocab_size)
    favoured[config.image_token_id] = 1e4
    hook = generator.model.lm_head.register_forward_hook(lambda _, __, logits: logits + favoured)
    try:
        (answer, _) = generator.answer([requests[0]])[0]
    finally:
        hook.remove()
    assert config.image_token_id not in answer


def test_weights_of_another_model_are_refused(generator: Any) -> None:
    weights = dict(generator.model.state_dict())
    name = next(iter(weights))
    with pytest.raises(ValueError, match="weights of another model"):
        generator.load_weights({key: value for key, value in weights.items() if key != name}, 1)
    with pytest.raises(ValueError, match=r"unknown \['more'\]"):
        generator.load_weights(weights | {"more": weights[name]}, 1)
    tied = {key: value for key, value in weights.items() if key != "lm_head.weight"}
    generator.load_weights(tied, 1)


def server_of(rollout: Any, answer: Any) -> Any:
    """A server without Ray, whose generator is a function."""
    from concurrent.futures import ThreadPoolExecutor

    server = object.__new__(rollout.TransformersServer)
    server.config = SimpleNamespace(prompt_length=10, response_length=5, max_num_seqs=4)
    server.generator = SimpleNamespace(answer=answer)
    server.version, server.waiting, server.worker = 3, [], None
    server.thread = ThreadPoolExecutor(max_workers=1)
    return server


def ask(server: Any, prompt: list[int], **sampling: Any) -> Any:
    return server.generate("id", prompt_ids=prompt, sampling_params={"temperature": 1.0, **sampling})


def test_requests_that_come_together_are_one_batch_in_an_order_of_their_own(rollout: Any) -> None:
    batches = []

    def answer(batch: list[Any]) -> list[tuple[list[int], list[float]]]:
        batches.append([request.prompt_ids for request in batch])
        return [([request.prompt_ids[0]], [-1.0]) for request in batch]

    async def run() -> list[Any]:
        server = server_of(rollout, answer)
        asked = [ask(server, [number]) for number in (3, 1, 2)]
        asked += [ask(server, [9], temperature=0.0), ask(server, [8], temperature=0.0, logprobs=True)]
        return await asyncio.gather(*asked)

    answers = asyncio.run(run())
    assert batches == [[[1], [2], [3]], [[8], [9]]]
    assert [one.token_ids for one in answers] == [[3], [1], [2], [9], [8]]
    assert [one.log_probs for one in answers] == [None, None, None, None, [-1.0]]
    assert all(one.extra_fields == {"global_steps": 3} for one in answers)


def test_a_batch_holds_no_more_than_max_num_seqs(rollout: Any) -> None:
    sizes = []

    def answer(batch: list[Any]) -> list[tuple[list[int], list[float]]]:
        sizes.append(len(batch))
        return [([0], [0.0]) for _ in batch]

    async def run() -> None:
        server = server_of(rollout, answer)
        await asyncio.gather(*(ask(server, [number]) for number in range(10)))

    asyncio.run(run())
    assert sizes == [4, 4, 2]


def test_a_failure_reaches_whoever_asked_and_the_server_goes_on(rollout: Any) -> None:
    def answer(batch: list[Any]) -> list[tuple[list[int], list[float]]]:
        if batch[0].prompt_ids == [0]:
            raise RuntimeError("out of memory")
        return [([1], [0.0]) for _ in batch]

    async def run() -> None:
        server = server_of(rollout, answer)
        with pytest.raises(RuntimeError, match="out of memory"):
            await ask(server, [0])
        assert (await ask(server, [1])).token_ids == [1]
        with pytest.raises(ValueError, match="leaves no room"):
            await ask(server, [1] * 15)
        with pytest.raises(ValueError, match="with images only"):
            await server.generate("id", prompt_ids=[1], sampling_params={}, video_data=["v"])

    asyncio.run(run())


def test_verl_finds_the_platform_and_the_rollout() -> None:
    """In a process of its own, as verl's workers do it: the module changes verl for good."""
    program = """
import torch, verl
from verl.plugin.platform import get_platform
from verl.utils.device import get_device_name, get_nccl_backend, get_torch_device
from verl.workers.rollout.base import get_rollout_class
from verl.workers.rollout.replica import get_rollout_replica_class
import verl.utils.distributed, verl.utils.fsdp_utils
platform = get_platform()
assert type(platform).__name__ == "PlatformCPU"
assert (get_device_name(), get_nccl_backend()) == ("cpu", "gloo")
assert get_torch_device().memory_allocated() == 0 and get_torch_device().mem_get_info() == (0, 1)
state = get_torch_device().get_rng_state()
first = torch.rand(1)
get_torch_device().set_rng_state(state)
assert torch.rand(1) == first
assert get_rollout_class("transformers_cpu").__name__ == "TransformersAdapter"
assert get_rollout_replica_class("transformers_cpu").__name__ == "TransformersReplica"
assert verl.utils.fsdp_utils.CPUOffloadPolicy(pin_memory=True).pin_memory is False
import os
os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
verl.utils.distributed.initialize_global_process_group_ray(timeout_second=60)
x = torch.ones(2)
torch.distributed.all_reduce(x)
print("as it should be", x.tolist())
"""
    here = {"VERL_USE_EXTERNAL_MODULES": "train.rl.verl_cpu", "VERL_PLATFORM": "cpu", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | here, capture_output=True, text=True, timeout=300
    )
    assert "as it should be [1.0, 1.0]" in run.stdout, run.stderr[-3000:]


def test_another_verl_is_refused() -> None:
    program = """
import importlib.metadata
real = importlib.metadata.version
importlib.metadata.version = lambda name: "0.10.0" if name == "verl" else real(name)
import train.rl.verl_cpu
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 1 and "is for verl 0.9.1, not 0.10.0" in run.stderr
