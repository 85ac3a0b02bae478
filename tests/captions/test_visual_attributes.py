"""The three questions of VAP-Diffusion: what is asked, how often, and what comes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dermaflux.captions.vlm import prompts
from dermaflux.captions.vlm.client import Answer, Question
from dermaflux.captions.vlm.visual_attributes import Subject, VisualAttributes
from dermaflux.core.hashing import sha256


class Recorder:
    """A `Vision` that names each question it answers and allows one stream at a time."""

    name = "recorder"

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self._open = False

    def check(self) -> None: ...

    def answers(self, questions: Iterable[Question]) -> Iterator[Answer]:
        assert not self._open, "a second stream of questions was opened inside the first"
        self._open = True
        for question in questions:
            self.asked.append(question)
            yield Answer(f"answer {len(self.asked)}", 100, 10, "stop")
        self._open = False


def subjects() -> list[Subject]:
    modalities = ["dermoscopic", "clinical", "dermoscopic", "tile", "clinical"]
    return [Subject(f"{i}", b"image %d" % i, one) for i, one in enumerate(modalities)]


def test_the_second_thought_is_asked_once_per_modality_and_without_image() -> None:
    vision = Recorder()
    chain = VisualAttributes(vision, window=2)
    list(chain.answers(subjects()[:3]))
    list(chain.answers(subjects()[3:]))  # the next shard of the same run
    thoughts = [one for one in vision.asked if one.text == prompts.THINK_TWICE]
    assert [one.image for one in thoughts] == [None] * 3
    assert len({one.key for one in thoughts}) == 3
    assert list(chain.thoughts) == ["dermoscopic", "clinical", "tile"]
    assert len(vision.asked) == 3 + 2 * 5


def test_the_final_question_holds_both_answers_and_the_image() -> None:
    vision = Recorder()
    chain = VisualAttributes(vision, window=3)
    answers = list(chain.answers(subjects()))
    said = {id(one): f"answer {number}" for number, one in enumerate(vision.asked, 1)}
    finals = [one for one in vision.asked if one.text.endswith(prompts.FINAL_DESCRIPTION)]
    firsts = [one for one in vision.asked if one.text == prompts.FIRST_IMPRESSION]
    for subject, first, final, answer in zip(subjects(), firsts, finals, answers, strict=True):
        assert first.image == final.image == subject.image
        assert first.key == final.key == subject.key
        assert f"\n{said[id(first)]}\n" in final.text
        assert f"\n{chain.thoughts[subject.modality].text}\n" in final.text
        assert answer == Answer(said[id(final)], 200, 20, "stop")


def test_no_more_than_a_window_is_read_ahead() -> None:
    read = []

    def stream() -> Iterator[Subject]:
        for number in range(10):
            read.append(number)
            yield Subject(str(number), b"", "clinical")

    answers = VisualAttributes(Recorder(), window=4).answers(stream())
    next(answers)
    assert read == [0, 1, 2, 3]


def test_prompts_are_the_published_ones() -> None:
    """Digests of the sentences cut out of the papers' own text by a regular expression."""
    used = [
        prompts.abc_question("benign"), prompts.FIRST_IMPRESSION, prompts.THINK_TWICE,
        prompts.FINAL_DESCRIPTION,
    ]  # fmt: skip
    published = [
        "d7768e8a1b259181", "90bf49222c528b20", "58174c4615c6c84d", "79b6a7882eb90f5e",
    ]  # fmt: skip
    assert [sha256(text.encode())[:16] for text in used] == published


def test_the_chain_runs_on_a_real_model(small_model: Path) -> None:
    from small_vision import picture

    from dermaflux.captions.vlm.transformers_vlm import InProcessVision

    images = [picture(seed) for seed in range(3)]
    chain = VisualAttributes(
        InProcessVision(str(small_model), precision="fp32", batch=2, maximum_tokens=6)
    )
    answers = list(chain.answers(Subject(sha256(one), one, "dermoscopic") for one in images))
    assert len({one.text for one in answers}) > 1
    # Question 3 holds the earlier answers, so the two prompts exceed what the published texts take.
    assert all(one.prompt_tokens > 2 * 60 and one.completion_tokens == 12 for one in answers)
