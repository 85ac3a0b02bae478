"""The prototype condition mechanism of VAP-Diffusion (section 2.4), as published and as released.

Each class has K learned elements. Attention to the elements of an image's class reconstructs the
network's features, `L_recon` is the error of that, and what was reconstructed is added between the
middle and the output blocks: a description unlike any of training is led to what training showed.
Pure.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import layer_norm

from dermaflux.generators.vap.model.attention import (
    CrossAttention,
    SelfAttention,
    attend,
    initialise,
    mlp,
)


class Prototypes(nn.Module):
    """The paper's: reconstruct the encoder's features, self-attention, zero-initialised linear.

    The text leaves open what is compared; here it is the features after a layer norm without
    parameters, so that the error of reconstructing nothing is 1/2 whatever their size.
    """

    def __init__(self, width: int, heads: int, classes: int, elements: int, joint: bool) -> None:
        """`classes` counts the one for no class; `joint` lets the target learn as well."""
        super().__init__()
        self.width, self.joint = width, joint
        self.elements = nn.Embedding(classes, elements * width)
        self.norm = nn.LayerNorm(width)
        self.reconstruction = CrossAttention(width, heads)
        self.modality_norm = nn.LayerNorm(width)
        self.modalities = SelfAttention(width, heads)
        self.injection = nn.Linear(width, width, bias=False)
        initialise(self)
        nn.init.zeros_(self.injection.weight)

    def forward(
        self, encoded: Tensor, middle: Tensor, classes: Tensor, reconstruct: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, L, W) for the output blocks, and L_recon of each image, (B,), if asked for.

        `encoded` are the tokens after the input blocks, `middle` those after the middle block.
        """
        elements = self.elements(classes).unflatten(-1, (-1, self.width))
        found = self.reconstruction(self.norm(encoded), elements)
        mixed = found + self.modalities(self.modality_norm(found))
        error = None
        if reconstruct:
            target = layer_norm(encoded.float(), (self.width,))
            error = _error(found, target if self.joint else target.detach())
        return middle + self.injection(mixed), error


class ReleasedPrototypes(nn.Module):
    """The authors' code: two unrelated attentions, to a learned target and for the injection.

    Differences from the text: features of the middle block, a target that learns with the rest
    and may collapse, no self-attention, and zero-initialised layers that a later initialisation
    fills again. Two norms that it creates and never uses are left out.
    """

    def __init__(self, width: int, heads: int, classes: int, elements: int) -> None:
        """`classes` counts the one for no class."""
        super().__init__()
        self.width, self.heads = width, heads
        self.elements = nn.Embedding(classes, elements * width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.attention = CrossAttention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.mlp = mlp(width)
        self.injection_1, self.injection_2 = (nn.Linear(width, width, bias=False) for _ in range(2))
        initialise(self)

    def forward(
        self, encoded: Tensor, middle: Tensor, classes: Tensor, reconstruct: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As `Prototypes.forward`."""
        elements = self.elements(classes).unflatten(-1, (-1, self.width))
        error = None
        if reconstruct:
            target = self.query(middle)
            keys, values = self.key(elements), self.value(elements)
            error = _error(attend(target, keys, values, self.heads), target)
        tokens = middle + self.injection_1(self.attention(middle, elements))
        return tokens + self.injection_2(self.mlp(self.norm(tokens))), error


def _error(found: Tensor, target: Tensor) -> Tensor:
    """Half the mean squared difference of each image, (B,), of (B, L, W)."""
    return (found.float() - target.float()).square().mean((1, 2)) / 2
