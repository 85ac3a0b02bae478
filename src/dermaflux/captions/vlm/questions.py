"""What VAP-Diffusion asks a model about images of one modality: a YAML file, or the published text.

The paper prints its three questions for dermatology and announces those of chest X-rays and
colonoscopy (section 2.2), which were not published. Reads the file that `caption.questions` names;
writes nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dermaflux.captions.text.quality import VISUAL_ATTRIBUTES, Fault
from dermaflux.captions.vlm import prompts
from dermaflux.core.vocabulary import CLASSES
from dermaflux.errors import InputError, one_line, quoted
from dermaflux.params import yaml_file

Attribute = Literal["asymmetry", "border", "shape", "size", "texture", "colour"]
_Question = Annotated[str, Field(min_length=10, max_length=4000)]
_Words = Annotated[str, Field(min_length=1, max_length=200)]
_CLASS = "{class}"


class Questions(BaseModel):
    """The questions of one modality, and the words that captions name it and its classes with."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    modality: _Words
    """Of what the images are, in the plural: `skin lesions`."""
    first_impression: _Question
    """Question 1, sent with the image."""
    second_thought: _Question
    """Question 2, sent without it, once for each modality of the table."""
    final_description: _Question
    """Question 3, sent with the image and both answers."""
    attributes: Annotated[list[Attribute], Field(max_length=len(get_args(Attribute)))]
    """What question 3 asks for and an answer has to mention."""
    sentence: _Words
    """Begins every caption; `{class}` stands for the name of the class."""
    classes: dict[Literal["benign", "malignant"], _Words]
    """Label of the table -> its name in that sentence."""

    @field_validator("sentence")
    @classmethod
    def _names_the_class(cls, sentence: str) -> str:
        if sentence.count(_CLASS) != 1 or "{" in sentence.replace(_CLASS, ""):
            raise ValueError(
                f"{quoted(sentence)} does not hold {_CLASS} once and no other brace; write it where"
                " the name of the class belongs"
            )
        return sentence

    @field_validator("classes")
    @classmethod
    def _are_all(cls, classes: dict[str, str]) -> dict[str, str]:
        if set(classes) != set(CLASSES) or len(set(classes.values())) < len(CLASSES):
            raise ValueError(
                f"{quoted(classes)} does not give {' and '.join(CLASSES)} a name each; write both"
            )
        return classes

    def class_sentence(self, label: str) -> str:
        """The sentence of an image's class; of a label that is no class, with the label itself."""
        names: dict[str, str] = dict(self.classes)  # type: ignore[arg-type]
        name = names.get(label, label)
        sentence = self.sentence
        if name[0] in "aeiou":
            sentence = re.sub(rf"\b([Aa]) {re.escape(_CLASS)}", rf"\1n {_CLASS}", sentence)
        return sentence.replace(_CLASS, name)

    @property
    def required(self) -> tuple[Fault, ...]:
        """The attributes, as the faults of not mentioning them."""
        missing: dict[str, Fault] = {fault.removeprefix("no "): fault for fault in get_args(Fault)}
        return tuple(missing[name] for name in self.attributes)

    @property
    def names_malignancy(self) -> bool:
        """Whether the classes are benign and malignant by name.

        Elsewhere no rule knows which words of a description contradict them.
        """
        return all(name == label for label, name in self.classes.items())


PUBLISHED = Questions(
    modality="skin lesions",
    first_impression=prompts.FIRST_IMPRESSION,
    second_thought=prompts.THINK_TWICE,
    final_description=prompts.FINAL_DESCRIPTION,
    attributes=[fault.removeprefix("no ") for fault in VISUAL_ATTRIBUTES],  # type: ignore[misc]
    sentence="This is an image containing a {class} lesion.",
    classes={"benign": "benign", "malignant": "malignant"},
)
"""VAP-Diffusion's, word for word; the sentence is DermaFlux's. `prompts/dermoscopy.yaml` has them
to be copied for another modality."""


def read(path: Path) -> Questions:
    """The questions of a file; raise `InputError` for one that is absent or not complete."""
    try:
        return Questions.model_validate(yaml_file.read(path))
    except FileNotFoundError:
        raise InputError(
            f"caption.questions {quoted(str(path))} does not exist; correct the path, or set it to "
            "prompts/dermoscopy.yaml"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(one_line(part, 100) for part in first["loc"])
        problem = one_line(first["msg"].removeprefix("Value error, "), 500)
        raise InputError(
            f"{path}: {where + ': ' if where else ''}{problem}; prompts/dermoscopy.yaml shows every"
            " key"
        ) from None
