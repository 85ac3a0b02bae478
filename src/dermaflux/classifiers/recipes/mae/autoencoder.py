"""The masked autoencoder: transformers' `ViTMAEForPreTraining` with the published initial weights.

transformers 5.23 leaves positions, class token and mask token of a new model at 0; positions never
learn, so such a model trains and does not know where a patch lies. Pure.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dermaflux.classifiers.recipes.mae.encoder import Encoder
from dermaflux.params import Pretrain

_TOKEN_DEVIATION = 0.02


def hidden_patches(encoder: Encoder, settings: Pretrain) -> int:
    """Patches of an image that the encoder does not see."""
    return encoder.patches - int(encoder.patches * (1 - settings.mask_ratio))


def build(encoder: Encoder, settings: Pretrain) -> Any:
    """The autoencoder on the current default device, its initial weights from torch's generator."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(
        hidden_size=encoder.width,
        num_hidden_layers=encoder.depth,
        num_attention_heads=encoder.heads,
        intermediate_size=encoder.hidden,
        layer_norm_eps=encoder.epsilon,
        image_size=encoder.side,
        patch_size=encoder.patch,
        decoder_hidden_size=settings.decoder_width,
        decoder_num_hidden_layers=settings.decoder_depth,
        decoder_num_attention_heads=settings.decoder_heads,
        decoder_intermediate_size=4 * settings.decoder_width,
        mask_ratio=settings.mask_ratio,
        norm_pix_loss=settings.norm_pix_loss,
    )
    model = ViTMAEForPreTraining(config)
    with torch.no_grad():
        _initialise(model, encoder)
    return model


def _initialise(model: Any, encoder: Encoder) -> None:
    """As the MAE repository: Xavier for matrices, 0 for biases, normal tokens, fixed positions."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    inputs, decoder = model.vit.embeddings, model.decoder
    nn.init.xavier_uniform_(inputs.patch_embeddings.projection.weight.flatten(1))
    side = encoder.side // encoder.patch
    for token, fixed in (
        (inputs.cls_token, inputs.position_embeddings),
        (decoder.mask_token, decoder.decoder_pos_embed),
    ):
        nn.init.normal_(token, std=_TOKEN_DEVIATION)
        fixed.copy_(positions(side, fixed.shape[-1]))


def positions(side: int, width: int) -> Tensor:
    """(side² + 1, width) fixed positions of the class token and of patches row by row.

    Sines, then cosines of the column at `width` / 4 frequencies from 1 down to nearly 1/10,000,
    then the same of the row; 0 for the class token. `get_2d_sincos_pos_embed` of
    https://github.com/facebookresearch/mae.
    """
    quarter = width // 4
    frequencies = 10_000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(*[torch.arange(side, dtype=torch.float64)] * 2, indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (column, row)]
    waves = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), waves]).float()


def reconstructions(model: Any, images: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """What the encoder sees of normalised images (B, 3, S, S), and what the decoder makes of it.

    Both (B, 3, S, S): hidden patches at 0, then hidden patches as predicted. With `norm_pix_loss`
    a prediction gets the mean and deviation of the patch it stands for, as in the MAE
    repository's demonstration.
    """
    output = model(pixel_values=images, noise=noise)
    patches, predicted = model.patchify(images), output.logits.float()
    if model.config.norm_pix_loss:
        deviation = (patches.var(dim=-1, keepdim=True) + 1e-6).sqrt()
        predicted = predicted * deviation + patches.mean(dim=-1, keepdim=True)
    mask = output.mask[..., None]
    seen, whole = patches * (1 - mask), patches * (1 - mask) + predicted * mask
    return model.unpatchify(seen), model.unpatchify(whole)
