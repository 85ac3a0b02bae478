"""Questions, class names and bank of a modality as files: the packaged ones, the worked example."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from dermaflux.captions.rows import caption_rows
from dermaflux.captions.text import prompt_file
from dermaflux.captions.text.label import label_sentence
from dermaflux.captions.vlm import captioner, questions
from dermaflux.captions.vlm.client import Request, Response
from dermaflux.core.vocabulary import CLASSES, LABELS
from dermaflux.errors import InputError
from dermaflux.params import Caption
from dermaflux.phantom import draw, render

PROMPTS = Path(__file__).parents[2] / "prompts"
XRAY = PROMPTS / "chest-xray.yaml"


def test_the_packaged_questions_are_the_published_ones() -> None:
    assert questions.read(PROMPTS / "dermoscopy.yaml") == questions.PUBLISHED
    for label in LABELS:
        assert questions.PUBLISHED.class_sentence(label) == label_sentence(label)
    assert captioner.retry_attributes(questions.PUBLISHED) == (
        "Answer in English, in at most six complete sentences. Describe the shape, the size, the "
        "texture and the color, and do not name a diagnosis."
    )


class StandIn:
    """A `VLM` whose description of an image is vague at first, and better when asked again."""

    name = "stand-in"

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def check(self) -> None: ...

    def generate(self, requests: Iterable[Request]) -> Iterator[Response]:
        for request in requests:
            self.requests.append(request)
            again = request.text.endswith("do not name a diagnosis.")
            text = "A small opacity of round shape and smooth texture." if again else "An opacity."
            # Of skin this would contradict the label malignant.
            yield Response(f"{text} It looks benign.", 50, 10, "stop")


def test_the_example_of_another_modality_asks_its_own_questions_of_phantom_pictures() -> None:
    images, encoded = [], []
    for number in range(4):
        buffer = io.BytesIO()
        lesion = draw(number, "test-questions")
        Image.fromarray(render(lesion, 96, 96)).convert("L").convert("RGB").save(buffer, "PNG")
        encoded.append(buffer.getvalue())
        images.append((f"phantom/{number}", CLASSES[number % 2], "clinical"))
    vlm = StandIn()
    section = Caption(captioner="visual_attributes", questions=str(XRAY), model="x", revision="y")
    frame = pd.DataFrame(images, columns=["image_id", "label", "modality"])
    rows = caption_rows(section, frame, encoded, vlm, jobs=1)
    names = {"benign": "no finding", "malignant": "a finding"}
    for row in rows:
        assert row["caption"].startswith(
            f"This is a chest X-ray with {names[row['label']]}. A small opacity of round shape"
        )
        assert row["flags"] is None, "no colour is asked for, and no word contradicts a class"
    sent = [request.text for request in vlm.requests]
    asked = questions.read(XRAY)
    # For each image the first and the last question, twice; the second is sent once each time.
    assert len(sent) == 2 * (2 * 4 + 1)
    assert sent.count(asked.first_impression) == 8
    assert sent.count(asked.second_thought) == 2
    assert sum("What chest X-rays can look like in general:\nAn opacity." in t for t in sent) == 8
    assert not any(word in text.lower() for text in sent for word in ("skin", "lesion", "color"))
    bank_file = PROMPTS / "chest-xray.csv"
    bank = prompt_file.bank(prompt_file.read(bank_file), "label", CLASSES, {}, bank_file)
    for label, prompts in bank.prompts.items():
        assert len(prompts) == 2
        assert all(prompt.text.startswith(asked.class_sentence(label)) for prompt in prompts)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"sentence": "A picture."}, "sentence: 'A picture.' does not hold {class} once"),
        ({"classes": {"benign": "x", "malignant": "x"}}, "classes: .* a name each; write both"),
        ({"attributes": ["shade"]}, r"attributes\.0: Input should be 'asymmetry'"),
        ({"second_thought": None}, "second_thought: Input should be a valid string"),
        ({"third": "What else do you see?"}, "third: Extra inputs are not permitted"),
    ],
)
def test_a_file_that_is_not_complete_is_refused(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    path = tmp_path / "mine.yaml"
    content = YAML(typ="safe").load(XRAY.read_text())
    YAML().dump({**content, **change}, path)
    with pytest.raises(InputError, match=expected) as raised:
        questions.read(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="does not exist; correct the path"):
        questions.read(tmp_path / "absent.yaml")
