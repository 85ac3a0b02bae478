"""Values that several parts of this generator read. Pure."""

from __future__ import annotations

GENERATOR = "latent_ddpm"
"""Its name, which the errors of shared code say."""
DECODER = "decoder"
"""Value of `perceptual_features` that stands for features of the autoencoder's decoder."""
