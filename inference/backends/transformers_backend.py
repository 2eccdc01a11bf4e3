"""Transformers instead of vLLM: one row after another, slow, a second implementation to compare with."""

from collections.abc import Generator, Iterable, Mapping
from typing import Any

from inference.backends.backend import Answer, Asking, EngineError, Refusal, Settings, first_line
from inference.backends.prepare import ChatTokenizer, Preparer, Request, RowError, visual_token_ids
from inference.backends.probes import askable, probes, with_confidences


class TransformersBackend:
    """A loaded checkpoint that answers rows by `generate`; a `backend.Backend`."""

    def __init__(self, settings: Settings, asking: Asking) -> None:
        """Load the checkpoint onto the GPU, if there is one. Raises EngineError."""
        try:
            import torch
            import transformers

            models: Any = transformers.AutoModelForImageTextToText
            processors: Any = transformers.AutoImageProcessor
            generation_config: Any = transformers.GenerationConfig
            self._torch = torch
            self._device = "cuda" if torch.cuda.is_available() else "cpu"
            dtype = settings.dtype
            if dtype == "auto" and self._device == "cpu":
                dtype = "float32"
            self.arguments = {"checkpoint": settings.checkpoint, "dtype": dtype, "device": self._device}
            self._model = models.from_pretrained(
                settings.checkpoint,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                use_safetensors=True,
                trust_remote_code=False,
            ).to(self._device)
            self._images = processors.from_pretrained(settings.checkpoint, use_fast=True)
        except Exception as error:
            raise EngineError(
                f"transformers could not load {settings.checkpoint}: {first_line(error)}"
            ) from error
        # Nothing of the checkpoint's sampling defaults, as with vLLM: only where a response ends.
        ends = self._model.generation_config.eos_token_id
        self._end_ids = ends if isinstance(ends, list) else [ends]
        self._model.generation_config = generation_config(eos_token_id=ends, pad_token_id=self._end_ids[0])
        self.asking = asking
        self.tokenizer = ChatTokenizer(settings.checkpoint)
        config = self._model.config
        self._merged = config.vision_config.spatial_merge_size**2
        self._image_token_id = config.image_token_id
        self._visual_token_ids = visual_token_ids(config)
        self._preparer = Preparer.of_model(config, self.tokenizer, asking, settings.max_model_len)
        self._room = settings.max_model_len

    def _render(self, request: Request) -> tuple[dict[str, Any], int]:
        """Give the model's own input for a request, and the image tokens in it."""
        size = {"shortest_edge": self.asking.min_pixels, "longest_edge": self.asking.max_pixels}
        try:
            cut = self._images(images=request.images, size=size, return_tensors="pt")
        except (ValueError, TypeError, RuntimeError) as error:
            raise RowError("request_refused", str(error).split("\n")[0][:300]) from None
        counts = [int(grid.prod()) // self._merged for grid in cut["image_grid_thw"]]
        left = iter(counts)
        ids: list[int] = []
        for token in request.prompt_token_ids:
            ids += [token] * (next(left) if token == self._image_token_id else 1)
        return {"ids": ids, "images": cut}, sum(counts)

    def answers(self, records: Iterable[Mapping[str, Any]]) -> Generator[Answer | Refusal | None, None, None]:
        """Yield every row's outcome, in order."""
        for prepared in self._preparer.prepare_ahead(records, self._render, threads=1, ahead=1):
            if isinstance(prepared, Refusal):
                yield prepared
                continue
            try:
                yield self._answer(prepared)
            except RuntimeError as error:  # out of memory, above all
                raise EngineError(f"transformers failed at row {prepared.id}: {first_line(error)}") from error

    def _answer(self, request: Request) -> Answer:
        asking = self.asking
        ids = request.rendered["ids"]
        completions = []
        self._torch.manual_seed(request.seed)
        sampled = {"do_sample": True, "temperature": asking.temperature, "top_p": asking.top_p, "top_k": 0}
        longest = min(asking.max_new_tokens, self._room - len(ids))
        for _ in range(asking.n_samples):
            made = self._model.generate(
                **self._inputs(request, ids),
                max_new_tokens=longest,
                **(sampled if asking.temperature else {"do_sample": False}),
            )
            completions.append(made[0, len(ids) :].tolist())
        texts = [self.tokenizer.decode(one) for one in completions]
        answer = Answer(
            id=request.id,
            response=texts[0],
            finish_reason="stop" if completions[0][-1] in self._end_ids else "length",
            n_image_tokens=request.n_image_tokens,
            n_prompt_tokens=len(ids),
            n_response_tokens=sum(map(len, completions)),
            samples=texts if len(texts) > 1 else None,
            images_sha256=request.images_sha256,
        )
        asked = probes(request, answer.response, asking.confidences, self.tokenizer)
        asked = askable(asked, self._room - len(ids), self._visual_token_ids)
        logprobs = [self._score(request, [*ids, *probe.token_ids], probe.n_scored) for probe in asked]
        return with_confidences(answer, asked, logprobs, len(ids))

    def _inputs(self, request: Request, ids: list[int]) -> dict[str, Any]:
        tokens = self._torch.tensor([ids], device=self._device)
        images = {name: value.to(self._device) for name, value in request.rendered["images"].items()}
        return {
            "input_ids": tokens,
            "attention_mask": self._torch.ones_like(tokens),
            # What tells text (0) from image (1): the positions of image tokens are made of it.
            "mm_token_type_ids": (tokens == self._image_token_id).int(),
            **images,
        }

    def _score(self, request: Request, ids: list[int], n_scored: int) -> float:
        """Give the sum of the log-probabilities (nats) of the last tokens."""
        with self._torch.inference_mode():
            logits = self._model(**self._inputs(request, ids)).logits[0, -n_scored - 1 : -1]
        chosen = self._torch.tensor(ids[-n_scored:], device=self._device)
        logprobs = logits.float().log_softmax(-1).gather(1, chosen[:, None])
        return float(logprobs.sum())
