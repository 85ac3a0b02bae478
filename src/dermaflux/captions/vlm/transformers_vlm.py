"""The in-process captioner: batched generation by a transformers vision-language model.

Made for meta-llama/Llama-3.2-11B-Vision-Instruct (`MllamaForConditionalGeneration`); any
repository of the image-text-to-text kind with a chat template works. Reads the hub's cache or a
folder; writes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dermaflux.captions.vlm import loading
from dermaflux.captions.vlm.client import Request, Response, refuse_oversize
from dermaflux.core.devices import automatic_device
from dermaflux.core.images import decode_image
from dermaflux.core.seeds import derived_seed
from dermaflux.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

TEMPLATE_DATE = "26 Jul 2024"
"""Llama's template writes today's date into prompts without an image, which would make the response
depend on the day; this is the date the template itself falls back to."""


@dataclass
class _Repository:
    """Parts of a repository, each opened once, on first use."""

    model: str
    revision: str | None
    precision: str
    device: torch.device

    @cached_property
    def commit(self) -> str | None:
        return loading.commit(self.model, self.revision)

    @cached_property
    def config(self) -> PreTrainedConfig:
        return loading.configuration(self.model, self.commit)

    @cached_property
    def identity(self) -> str:
        return loading.identity(self.model, self.commit)

    @cached_property
    def processor(self) -> ProcessorMixin:
        return loading.processor(self.model, self.commit)

    @cached_property
    def memory(self) -> str:
        return loading.fits(self.model, self.config, self.precision, self.device)

    @cached_property
    def weights(self) -> PreTrainedModel:
        print(self.memory)
        return loading.load(self.model, self.commit, self.precision, self.device)


class TransformersVLM:
    """A `VLM` that generates on this machine's GPU, or on its CPU without one."""

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        precision: str = "bf16",
        batch: int = 8,
        maximum_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        device = device or automatic_device()
        self._repository = _Repository(model, revision, precision, device)
        self._batch, self._maximum_tokens = batch, maximum_tokens
        self._temperature, self._seed = temperature, seed

    @property
    def name(self) -> str:
        """Repository@commit, or folder@hash of its files, and the precision."""
        return f"{self._repository.identity} {self._repository.precision}"

    def check(self) -> None:
        """Open configuration, processor and template, and compare memory; loads no weights."""
        _ = self._repository.memory
        self.prompt(Request("Describe.", b"", ""))

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        """Responses in order; memory holds `batch` requests.

        At temperature 0 decoding is greedy. Above it, each request has its own random generator,
        so that a response never depends on its neighbours in the batch. Raises `InputError` for an
        image with a side over `client.LONGEST_SIDE`; the model's image processor resizes smaller
        ones to its tiles (at most four of 560 x 560 for Llama 3.2).
        """
        # With and without image apart: the processor takes no batch of both.
        for _, same_kind in itertools.groupby(requests, lambda request: request.image is None):
            while batch := list(itertools.islice(same_kind, self._batch)):
                yield from self._generate_batch(batch)

    def prompt(self, request: Request) -> str:
        """The rendered chat: one user turn, image first.

        Instructions are part of the user turn because the template refuses a system message beside
        an image ("Prompting with images is incompatible with system messages.").
        """
        from jinja2 import TemplateError

        content: Any = [{"type": "text", "text": request.text}]
        if request.image is not None:
            content.insert(0, {"type": "image"})
        try:
            return str(
                self._repository.processor.apply_chat_template(
                    [{"role": "user", "content": content}],
                    add_generation_prompt=True,
                    tokenize=False,
                    date_string=TEMPLATE_DATE,
                )
            )
        except TemplateError as error:
            raise InputError(
                f"the chat template of caption.model {self._repository.model} refuses a prompt "
                f"({error}); name another model or revision"
            ) from None

    def encode(self, requests: Sequence[Request]) -> Any:
        """Model inputs of requests that all have an image, or all have none.

        The rendered chat already starts with the begin-of-text token, hence
        `add_special_tokens=False`.
        """
        images = []
        for request in requests:
            if request.image is not None:
                refuse_oversize(request.image)
                images.append([decode_image(request.image)])
        return self._repository.processor(
            images=images or None,
            text=[self.prompt(request) for request in requests],
            padding=True,
            add_special_tokens=False,
            return_tensors="pt",
        )

    def _generate_batch(self, batch: Sequence[Request]) -> Iterator[Response]:
        repository = self._repository
        model: Any = repository.weights
        dtype = loading.DTYPES[repository.precision]
        inputs = self.encode(batch).to(repository.device, dtype)
        processors = []
        if self._temperature > 0.0:
            seeds = [derived_seed(self._seed, request.key, request.text) for request in batch]
            processors.append(GumbelSampling(self._temperature, seeds, repository.device))
        tokenizer = repository.processor.tokenizer
        try:
            with torch.inference_mode():
                # The repository's generation settings sample; these override them.
                output = model.generate(
                    **inputs,
                    max_new_tokens=self._maximum_tokens,
                    do_sample=False,
                    temperature=None,
                    top_p=None,
                    top_k=None,
                    pad_token_id=tokenizer.pad_token_id,
                    logits_processor=processors,
                )
        except torch.cuda.OutOfMemoryError:
            raise InputError(
                f"caption.batch {self._batch} does not fit into GPU memory beside "
                f"{repository.model}; lower it"
            ) from None
        generated = output[:, inputs["input_ids"].shape[1] :].tolist()
        ends = end_tokens(model)
        for row, mask in zip(generated, inputs["attention_mask"].sum(dim=1).tolist(), strict=True):
            tokens, finished = until_end(row, ends)
            text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
            yield Response(text, mask, len(tokens), "stop" if finished else "length")


def end_tokens(model: PreTrainedModel) -> set[int]:
    """Ids of the tokens that end a response."""
    ends = model.generation_config.eos_token_id
    return set() if ends is None else set(ends) if isinstance(ends, list) else {ends}


def until_end(row: Sequence[int], ends: set[int]) -> tuple[list[int], bool]:
    """Tokens of one response up to and including its end token, and whether there was one."""
    for index, token in enumerate(row):
        if token in ends:
            return list(row[: index + 1]), True
    return list(row), False


class GumbelSampling:
    """Logits processor (B, V): makes the argmax a sample from softmax(logits / temperature).

    The argmax of logits / temperature + Gumbel noise is such a sample (Maddison et al. 2014,
    arXiv 1411.0030). transformers samples a whole batch from one stream, so that each response
    depends on its neighbours; here each row has its own generator.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], device: torch.device) -> None:
        self._temperature = temperature
        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Noisy scores in float32; `exponential_` never draws 0, so the noise is finite."""
        noise = [
            -torch.empty(scores.shape[1], device=scores.device)
            .exponential_(generator=generator)
            .log()
            for generator in self._generators
        ]
        return scores.float() / self._temperature + torch.stack(noise)
