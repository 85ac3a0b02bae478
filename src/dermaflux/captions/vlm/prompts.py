"""The published prompts, word for word, and how answers go into the next question.

Reads and writes nothing.
"""

from __future__ import annotations

DESCRIBE = (
    "Give me a description of this mole regarding its asymmetry, border irregularity, and color."
)
"""DermaFlux, Figure 2; follows the label sentence."""

FIRST_IMPRESSION = (
    "You are an AI visual assistant observing a skin lesion image. Describe the information you "
    "observe from the image without providing any conclusions."
)
"""VAP-Diffusion, section 2.2, Question 1: asked with the image."""

THINK_TWICE = (
    "Skin lesions may present with diverse shapes, colors, sizes, and texture features. The "
    "surrounding skin may also appear normal or show signs of inflammation, pigmentation, or other "
    "changes. Can you provide the specific aspects of these features and how they manifest in "
    "different ways?"
)
"""VAP-Diffusion, section 2.2, Question 2: asked without the image."""

FINAL_DESCRIPTION = (
    "Based on this image itself, please describe it shortly and concisely, according to the "
    "shape, color, size (due to the unavailability of quantitative dimensions, you can just "
    "describe their approximate proportion in the whole image), and texture of the lesion and "
    "skin background."
)
"""VAP-Diffusion, section 2.2, Question 3: asked with the image and both answers."""


def abc_question(label: str) -> str:
    """The prompt of DermaFlux, Figure 2, for an image of class `label`."""
    from dermaflux.captions.text.label import label_sentence

    return f"{label_sentence(label)} {DESCRIBE}"


def final_question(first_impression: str, second_thought: str) -> str:
    """Question 3 after the two earlier answers.

    The paper gives MLLM(t1, t2, X0, Question 3) and not how the texts are joined; the headings are
    ours.
    """
    return (
        f"Your first impression of this image:\n{first_impression.strip()}\n\n"
        f"What skin lesions can look like in general:\n{second_thought.strip()}\n\n"
        f"{FINAL_DESCRIPTION}"
    )


def training_caption(label: str, answer: str) -> str:
    """The caption an answer becomes: the label sentence, then the answer on one line.

    The models are not asked to repeat the class, and the generator must be told it; `measured`
    captions start alike.
    """
    from dermaflux.captions.text.label import label_sentence

    return " ".join(f"{label_sentence(label)} {answer}".split())
