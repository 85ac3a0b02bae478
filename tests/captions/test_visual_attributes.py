"""The three prompts of VAP-Diffusion: what is sent, how often, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dermaflux.captions.vlm import prompts
from dermaflux.captions.vlm.client import LesionImage, Request, Response
from dermaflux.captions.vlm.visual_attributes import VisualAttributes
from dermaflux.core.hashing import sha256


class Recorder:
    """A `VLM` that numbers its responses and allows one stream at a time."""

    name = "recorder"

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._open = False

    def check(self) -> None: ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        assert not self._open, "a second stream of requests was opened inside the first"
        self._open = True
        for request in requests:
            self.requests.append(request)
            yield Response(f"answer {len(self.requests)}", 100, 10, "stop")
        self._open = False


def lesions() -> list[LesionImage]:
    modalities = ["dermoscopic", "clinical", "dermoscopic", "tile", "clinical"]
    return [
        LesionImage(b"image %d" % index, f"{index}", "benign", modality)
        for index, modality in enumerate(modalities)
    ]


def test_the_second_thought_is_generated_once_per_modality_and_without_image() -> None:
    vlm = Recorder()
    chain = VisualAttributes(vlm, window=2)
    list(chain.generate(lesions()[:3]))
    list(chain.generate(lesions()[3:]))  # the next shard of the same run
    thoughts = [request for request in vlm.requests if request.text == prompts.THINK_TWICE]
    assert [request.image for request in thoughts] == [None] * 3
    assert len({request.key for request in thoughts}) == 3
    assert list(chain.thoughts) == ["dermoscopic", "clinical", "tile"]
    assert len(vlm.requests) == 3 + 2 * 5


def test_the_final_prompt_holds_both_answers_and_the_image() -> None:
    vlm = Recorder()
    chain = VisualAttributes(vlm, window=3)
    responses = list(chain.generate(lesions()))
    texts = {id(request): f"answer {number}" for number, request in enumerate(vlm.requests, 1)}
    finals = [
        request for request in vlm.requests if request.text.endswith(prompts.FINAL_DESCRIPTION)
    ]
    firsts = [request for request in vlm.requests if request.text == prompts.FIRST_IMPRESSION]
    for lesion, first, final, response in zip(lesions(), firsts, finals, responses, strict=True):
        assert first.image == final.image == lesion.encoded
        assert first.key == final.key == lesion.key
        assert f"\n{texts[id(first)]}\n" in final.text
        assert f"\n{chain.thoughts[lesion.modality].text}\n" in final.text
        assert response == Response(texts[id(final)], 200, 20, "stop")


def test_no_more_than_a_window_is_read_ahead() -> None:
    read = []

    def stream() -> Iterator[LesionImage]:
        for number in range(10):
            read.append(number)
            yield LesionImage(b"", str(number), "benign", "clinical")

    responses = VisualAttributes(Recorder(), window=4).generate(stream())
    next(responses)
    assert read == [0, 1, 2, 3]


def test_prompts_are_the_published_ones() -> None:
    """Digests of the sentences cut out of the papers' own text by a regular expression."""
    used = [
        prompts.abc_prompt("benign"), prompts.FIRST_IMPRESSION, prompts.THINK_TWICE,
        prompts.FINAL_DESCRIPTION,
    ]  # fmt: skip
    published = [
        "d7768e8a1b259181", "90bf49222c528b20", "58174c4615c6c84d", "79b6a7882eb90f5e",
    ]  # fmt: skip
    assert [sha256(text.encode())[:16] for text in used] == published


def test_the_chain_runs_on_a_real_model(small_model: Path) -> None:
    from small_vision import noise_image

    from dermaflux.captions.vlm.transformers_vlm import TransformersVLM

    images = [noise_image(seed) for seed in range(3)]
    chain = VisualAttributes(
        TransformersVLM(str(small_model), precision="fp32", batch=2, maximum_tokens=6)
    )
    subjects = [LesionImage(image, sha256(image), "benign", "dermoscopic") for image in images]
    responses = list(chain.generate(subjects))
    assert len({response.text for response in responses}) > 1
    # Prompt 3 holds the earlier answers, so the prompts are longer than the published texts.
    assert all(response.prompt_tokens > 2 * 60 for response in responses)
    assert all(response.completion_tokens == 12 for response in responses)
