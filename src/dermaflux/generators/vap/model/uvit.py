"""U-ViT (Bao et al., CVPR 2023, arXiv 2209.12152): all conditions are tokens, with long skips.

Class, time, text and image patches are one sequence. Half of the blocks come before a middle block
and half after it; each of the latter joins the output of its counterpart by a linear layer over
both. Blocks normalise first, and a 3x3 convolution ends the network. Reads and writes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dermaflux.generators.vap.model.attention import SelfAttention, initialise, mlp
from dermaflux.generators.vap.model.options import ReconstructionTarget, Variant
from dermaflux.generators.vap.model.prototypes import Prototypes, ReleasedPrototypes

_LONGEST_PERIOD = 10_000
"""Of the time's sinusoids, in steps of 1000."""


@dataclass(frozen=True)
class Shape:
    """Everything that decides the network and what it learns."""

    channels: int
    """Of the latents."""
    side: int
    """Of the latents."""
    patch: int
    """Side of a patch, in latents."""
    width: int
    depth: int
    """Blocks without the middle one; even."""
    heads: int
    classes: int
    """Without the one for no class, which comes last."""
    text_tokens: int
    """0: no text."""
    text_width: int
    prototypes: int = 0
    """Elements of a class; 0: no prototypes."""
    variant: Variant = "paper"
    reconstruction_target: ReconstructionTarget = "detached"

    @property
    def class_token(self) -> bool:
        """Whether the class is a token; in the released code it enters through prototypes only."""
        return self.variant == "paper"

    @property
    def conditions(self) -> int:
        """Tokens before those of the image."""
        return int(self.class_token) + 1 + self.text_tokens

    @property
    def tokens(self) -> int:
        """Of a sequence."""
        return self.conditions + (self.side // self.patch) ** 2


class Block(nn.Module):
    """Attention and MLP, each after a norm and added; first, with a skip, one linear over both."""

    def __init__(self, width: int, heads: int, skip: bool = False) -> None:
        super().__init__()
        self.skip = nn.Linear(2 * width, width) if skip else None
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = SelfAttention(width, heads), mlp(width)

    def forward(self, tokens: Tensor, earlier: Tensor | None = None) -> Tensor:
        """(B, L, W) -> (B, L, W)."""
        if self.skip is not None and earlier is not None:
            tokens = self.skip(torch.cat([tokens, earlier], dim=-1))
        tokens = tokens + self.attention(self.norm_1(tokens))
        mixed: Tensor = tokens + self.mlp(self.norm_2(tokens))
        return mixed


class UViT(nn.Module):
    """The network. Weights that a mechanism does not touch start the same with and without it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, heads, half = shape.width, shape.heads, shape.depth // 2
        self.patches = nn.Conv2d(shape.channels, width, shape.patch, stride=shape.patch)
        self.classes = nn.Embedding(shape.classes + 1, width) if shape.class_token else None
        self.text = nn.Linear(shape.text_width, width) if shape.text_tokens else None
        self.positions = nn.Parameter(torch.zeros(1, shape.tokens, width))
        self.input_blocks = nn.ModuleList(Block(width, heads) for _ in range(half))
        self.middle = Block(width, heads)
        self.output_blocks = nn.ModuleList(Block(width, heads, skip=True) for _ in range(half))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, shape.patch**2 * shape.channels)
        self.final = nn.Conv2d(shape.channels, shape.channels, 3, padding=1)
        initialise(self)
        if not self.positions.is_meta:
            nn.init.trunc_normal_(self.positions, std=0.02)
        self.prototypes = _mechanism(shape)  # last: its random start moves no other

    def forward(
        self,
        latents: Tensor,
        times: Tensor,
        classes: Tensor,
        text: Tensor | None = None,
        reconstruct: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """What the model predicts, (B, C, h, w), and L_recon of each image, (B,), if asked for.

        `latents` (B, C, h, w), `times` (B,) in 0..1000, `classes` (B,) int64, `text` (B, T, D).
        """
        tokens = self._tokens(latents, times, classes, text)
        earlier = []
        for block in self.input_blocks:
            tokens = block(tokens)
            earlier.append(tokens)
        encoded, tokens, error = tokens, self.middle(tokens), None
        if self.prototypes is not None:
            tokens, error = self.prototypes(encoded, tokens, classes, reconstruct)
        for block in self.output_blocks:
            tokens = block(tokens, earlier.pop())
        patches = self.output(self.norm(tokens[:, self.shape.conditions :]))
        return self.final(self._image(patches)), error

    def _tokens(
        self, latents: Tensor, times: Tensor, classes: Tensor, text: Tensor | None
    ) -> Tensor:
        """(B, L, W): class, time, text, patches, with positions."""
        image = self.patches(latents).flatten(2).transpose(1, 2)
        parts = [time_embedding(times, self.shape.width)[:, None], image]
        if self.text is not None and text is not None:
            parts.insert(1, self.text(text))
        if self.classes is not None:
            parts.insert(0, self.classes(classes)[:, None])
        return torch.cat(parts, dim=1) + self.positions

    def _image(self, patches: Tensor) -> Tensor:
        """(B, C, h, w) of patches (B, N, p p C), row by row."""
        side, patch = self.shape.side // self.shape.patch, self.shape.patch
        grid = patches.reshape(len(patches), side, side, patch, patch, self.shape.channels)
        return grid.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _mechanism(shape: Shape) -> Prototypes | ReleasedPrototypes | None:
    if not shape.prototypes:
        return None
    sizes = (shape.width, shape.heads, shape.classes + 1, shape.prototypes)
    if shape.variant == "released":
        return ReleasedPrototypes(*sizes)
    return Prototypes(*sizes, joint=shape.reconstruction_target == "joint")


def time_embedding(times: Tensor, width: int) -> Tensor:
    """(B, width): cosines and sines of times (B,), as in Vaswani et al. 2017."""
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=times.device)
    angles = times.float()[:, None] * torch.exp(-math.log(_LONGEST_PERIOD) * steps / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def forward_flop(shape: Shape) -> float:
    """FLOP (a multiply-add counts 2) of one image's forward pass, counted on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        text = torch.empty(1, shape.text_tokens, shape.text_width) if shape.text_tokens else None
        latents = torch.empty(1, shape.channels, shape.side, shape.side)
        UViT(shape)(latents, torch.empty(1), torch.empty(1, dtype=torch.long), text, True)
    return float(counter.get_total_flops())


def parameters(shape: Shape) -> int:
    """How many numbers are trained."""
    with torch.device("meta"):
        return sum(weight.numel() for weight in UViT(shape).parameters())
