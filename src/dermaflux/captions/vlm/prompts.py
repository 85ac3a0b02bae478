"""The published prompts, word for word, and how responses go into the next prompt.

Reads and writes nothing.
"""

from __future__ import annotations

from dermaflux.captions.text.label import label_sentence

DESCRIBE = (
    "Give me a description of this mole regarding its asymmetry, border irregularity, and color."
)
"""DermaFlux, Figure 2; follows the label sentence."""

FIRST_IMPRESSION = (
    "You are an AI visual assistant observing a skin lesion image. Describe the information you "
    "observe from the image without providing any conclusions."
)
"""VAP-Diffusion, section 2.2, Question 1: sent with the image."""

THINK_TWICE = (
    "Skin lesions may present with diverse shapes, colors, sizes, and texture features. The "
    "surrounding skin may also appear normal or show signs of inflammation, pigmentation, or other "
    "changes. Can you provide the specific aspects of these features and how they manifest in "
    "different ways?"
)
"""VAP-Diffusion, section 2.2, Question 2: sent without the image."""

FINAL_DESCRIPTION = (
    "Based on this image itself, please describe it shortly and concisely, according to the "
    "shape, color, size (due to the unavailability of quantitative dimensions, you can just "
    "describe their approximate proportion in the whole image), and texture of the lesion and "
    "skin background."
)
"""VAP-Diffusion, section 2.2, Question 3: sent with the image and both answers."""


def abc_prompt(label: str) -> str:
    """The prompt of DermaFlux, Figure 2, for an image of class `label`."""
    return f"{label_sentence(label)} {DESCRIBE}"


def final_prompt(
    first_impression: str,
    second_thought: str,
    question: str = FINAL_DESCRIPTION,
    modality: str = "skin lesions",
) -> str:
    """Question 3 after the two earlier answers; `modality` is what the images show.

    The paper gives MLLM(t1, t2, X0, Question 3) but not how the texts are joined; the headings are
    ours.
    """
    return (
        f"Your first impression of this image:\n{first_impression.strip()}\n\n"
        f"What {modality} can look like in general:\n{second_thought.strip()}\n\n"
        f"{question}"
    )


def training_caption(label: str, description: str, sentence: str | None = None) -> str:
    """The caption of an image: the label sentence, or another, then the description on one line.

    The models are not asked to repeat the class, but the generator has to learn it; `measured`
    captions start the same way.
    """
    return " ".join(f"{sentence or label_sentence(label)} {description}".split())
