"""The rollout `transformers_cpu` for verl 0.9.1: transformers' generate as one of verl's async servers.

verl's agent loop sends every rollout as a request of its own. `TransformersServer`, a Ray actor, gathers
those that come together into one batch, pads them on the left and answers them by one call of generate.
`TransformersAdapter` lives in the training worker and sends it the new weights after each step.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
import torch
from PIL.Image import Image
from transformers import AutoModelForImageTextToText
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import HFModelConfig
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput
from verl.workers.rollout.utils import ensure_async_iterator

as_async_iterator: Any = ensure_async_iterator

QUIET_S = 0.1
"""A batch is closed when no request has come for this long: short beside a call of generate, long beside the
milliseconds that the agent loop needs to prepare one prompt."""


@dataclass(frozen=True)
class Request:
    """One rollout: the prompt with its image tokens expanded, the images, and how to sample."""

    prompt_ids: list[int]
    images: Sequence[Image]
    sampling: tuple[float, float, int]
    """Temperature (0: greedy), top_p, top_k (below 1: all)."""
    max_new_tokens: int

    def content(self) -> tuple[list[int], list[bytes]]:
        """What tells requests apart: they are generated in this order, in whichever order they came."""
        return self.prompt_ids, [image.tobytes() for image in self.images]


@dataclass(eq=False)
class Waiting:
    """A request and where its answer goes: token ids and their log-probabilities."""

    request: Request
    answer: asyncio.Future[tuple[list[int], list[float]]]


class Generator:
    """A Qwen-VL model that answers batches of requests; not for several threads at once."""

    def __init__(self, model: Any, processor: Any, seed: int) -> None:
        self.model = model.eval()
        self.processor = processor
        self.seed = seed
        settings = model.generation_config
        config = model.config
        eos = settings.eos_token_id
        self.eos_ids = set(eos if isinstance(eos, list) else [eos])
        self.pad_id = settings.pad_token_id if settings.pad_token_id is not None else min(self.eos_ids)
        # A placeholder in an answer stands for no picture, and the actor would look for its pixels.
        vision = (config.image_token_id, config.video_token_id, config.vision_start_token_id)
        self.suppressed = sorted({*(settings.suppress_tokens or ()), *vision})

    def load_weights(self, weights: dict[str, torch.Tensor], version: int | None) -> None:
        """Take the actor's weights, all of them, and start the random numbers that belong to their version.

        Raises ValueError if names are missing or unknown.
        """
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        tied = {"lm_head.weight"} if self.model.config.tie_word_embeddings else set()
        if unexpected or set(missing) - tied:
            raise ValueError(f"weights of another model: missing {missing[:3]}, unknown {unexpected[:3]}")
        # By version: a run that was resumed samples as one that was not.
        torch.manual_seed(self.seed * 1_000_003 + (version or 0))

    @torch.inference_mode()
    def answer(self, requests: Sequence[Request]) -> list[tuple[list[int], list[float]]]:
        """Give (token ids with the end token, their log-probabilities) for requests of one `sampling`.

        The log-probabilities are those of the temperature's distribution over all tokens, as the actor's are:
        what top_p, top_k and the suppressed tokens take away is not taken off.
        """
        temperature, top_p, top_k = requests[0].sampling
        arguments: dict[str, Any] = {"do_sample": temperature > 0}
        if temperature > 0:
            arguments |= {"temperature": temperature, "top_p": top_p, "top_k": max(top_k, 0)}
        inputs = self._inputs(requests)
        output = self.model.generate(
            **inputs,
            **arguments,
            max_new_tokens=max(request.max_new_tokens for request in requests),
            suppress_tokens=self.suppressed,
            pad_token_id=self.pad_id,
            eos_token_id=sorted(self.eos_ids),
            output_logits=True,
            return_dict_in_generate=True,
        )
        tokens = output.sequences[:, inputs["input_ids"].shape[1] :]
        logits = torch.stack(output.logits, dim=1).float() / (temperature or 1.0)
        log_probs = torch.log_softmax(logits, dim=-1).gather(-1, tokens[..., None]).squeeze(-1)
        lengths = [self._length(row, request) for row, request in zip(tokens.tolist(), requests, strict=True)]
        return [(tokens[i, :n].tolist(), log_probs[i, :n].tolist()) for i, n in enumerate(lengths)]

    def _inputs(self, requests: Sequence[Request]) -> dict[str, torch.Tensor]:
        """Prompts padded on the left, so that all end where generation begins, and the pixels."""
        width = max(len(request.prompt_ids) for request in requests)
        input_ids = torch.full((len(requests), width), self.pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, request in enumerate(requests):
            input_ids[row, width - len(request.prompt_ids) :] = torch.tensor(request.prompt_ids)
            attention_mask[row, width - len(request.prompt_ids) :] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        images = [image for request in requests for image in request.images]
        if images:
            inputs |= self.processor.image_processor(images=images, return_tensors="pt")
            inputs["mm_token_type_ids"] = (input_ids == self.model.config.image_token_id).int()
        return inputs

    def _length(self, tokens: list[int], request: Request) -> int:
        """Tokens of an answer in a batch that went on for the longest one."""
        ends = (place + 1 for place, token in enumerate(tokens) if token in self.eos_ids)
        return min(next(ends, len(tokens)), request.max_new_tokens)


class TransformersServer:
    """The Ray actor that answers rollout requests; verl calls its methods by these names."""

    def __init__(self, config: Any, model_config: Any, replica_rank: int) -> None:
        # The training worker computes at the same time only while this one waits for it.
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        self.config = config
        model: Any = omega_conf_to_dataclass(model_config, dataclass_type=HFModelConfig)
        loaded = AutoModelForImageTextToText.from_pretrained(
            model.local_path, dtype=torch.float32, attn_implementation="sdpa"
        )
        self.generator = Generator(loaded, model.processor, config.seed + replica_rank)
        self.version: int | None = None
        self.waiting: list[Waiting] = []
        self.worker: asyncio.Task[None] | None = None
        self.thread = ThreadPoolExecutor(max_workers=1)

    async def update_weights(self, weights: dict[str, torch.Tensor], version: int | None) -> None:
        """Take new weights, after what is being generated."""
        await asyncio.get_running_loop().run_in_executor(
            self.thread, self.generator.load_weights, weights, version
        )
        self.version = version

    async def generate(
        self,
        request_id: str,
        *,
        prompt_ids: Sequence[int],
        sampling_params: dict[str, Any],
        image_data: Sequence[Image] | None = None,
        video_data: Any = None,
        **_: Any,
    ) -> TokenOutput:
        """Answer one prompt. Raises ValueError for videos and for a prompt that leaves no room."""
        if video_data:
            raise ValueError("the CPU rollout answers prompts with images only")
        limit = self.config.prompt_length + self.config.response_length - len(prompt_ids)
        limit = min(self.config.response_length, limit, sampling_params.get("max_tokens", limit))
        if limit < 1:
            raise ValueError(
                f"a prompt of {len(prompt_ids)} tokens leaves no room; raise data.max_prompt_length"
            )
        sampling = (
            float(sampling_params.get("temperature", 1.0)),
            float(sampling_params.get("top_p", 1.0)),
            int(sampling_params.get("top_k", -1)),
        )
        request = Request([int(token) for token in prompt_ids], image_data or (), sampling, limit)
        waiting = Waiting(request, asyncio.get_running_loop().create_future())
        self.waiting.append(waiting)
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._answer_waiting())
        tokens, log_probs = await waiting.answer
        return TokenOutput(
            token_ids=tokens,
            log_probs=log_probs if sampling_params.get("logprobs") else None,
            stop_reason="completed",
            extra_fields={"global_steps": self.version},
        )

    async def _answer_waiting(self) -> None:
        while self.waiting:
            n_waiting = 0
            while n_waiting < len(self.waiting) < self.config.max_num_seqs:
                n_waiting = len(self.waiting)
                await asyncio.sleep(QUIET_S)
            sampling = self.waiting[0].request.sampling
            alike = [item for item in self.waiting if item.request.sampling == sampling]
            batch = sorted(alike[: self.config.max_num_seqs], key=lambda item: item.request.content())
            self.waiting = [item for item in self.waiting if item not in batch]
            try:
                answers = await asyncio.get_running_loop().run_in_executor(
                    self.thread, self.generator.answer, [item.request for item in batch]
                )
            except Exception as error:  # whatever it was, the requests must not wait for ever
                for item in batch:
                    item.answer.set_exception(error)
            else:
                for item, answer in zip(batch, answers, strict=True):
                    item.answer.set_result(answer)

    async def _nothing(self, *_: Any, **__: Any) -> None:
        """What verl asks of a server that shares a GPU with the training."""

    wake_up = sleep = abort_all_requests = resume_generation = clear_kv_cache = _nothing
    release_kv_cache = resume_kv_cache = start_profile = stop_profile = _nothing


def server_name(replica_rank: int) -> str:
    """The name by which the training worker finds its server in Ray."""
    return f"transformers_cpu_{replica_rank}"


class TransformersReplica(RolloutReplica):
    """Starts the server of one replica."""

    async def launch_servers(self) -> None:
        """Start it and wait until its model is loaded."""
        server: Any = (
            ray.remote(TransformersServer)
            .options(name=server_name(self.replica_rank), max_concurrency=self.max_concurrency, num_cpus=0)
            .remote(self.config, self.model_config, self.replica_rank)
        )
        await server.wake_up.remote()
        self.servers, self._server_handle = [server], server
        self._server_address = server_name(self.replica_rank)


class TransformersAdapter(BaseRollout):
    """The training worker's side: every rank gathers the weights, one of a replica sends them."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, *_: Any, **__: Any) -> None:
        super().__init__(config, model_config, device_mesh)
        self.replica_rank, self.rank_in_replica = divmod(
            int(os.environ["RANK"]), self.config.tensor_model_parallel_size
        )

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """Nothing to release."""

    @torch.no_grad()
    async def update_weights(
        self,
        weights: Any,
        wire_format: str = "named_tensors",
        global_steps: int | None = None,
        peft_config: Any = None,
        **_: Any,
    ) -> None:
        """Send (name, tensor) pairs. Raises ValueError for LoRA adapters and differences of weights."""
        if peft_config is not None or wire_format != "named_tensors":
            raise ValueError("the CPU rollout takes whole weights: full fine-tuning, checkpoint_engine naive")
        gathered = {name: tensor.detach().cpu().clone() async for name, tensor in as_async_iterator(weights)}
        if self.rank_in_replica == 0:
            await ray.get_actor(server_name(self.replica_rank)).update_weights.remote(gathered, global_steps)
