"""verl without a GPU: the platform, and a rollout whose batches answer as single prompts would."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "EmoCaliber-mini"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rollout() -> Iterator[Any]:
    """train/rl/verl_cpu_rollout.py, which imports verl."""
    sys.path.insert(0, str(ROOT))
    try:
        from train.rl import verl_cpu_rollout

        yield verl_cpu_rollout
    finally:
        sys.path.remove(str(ROOT))


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
