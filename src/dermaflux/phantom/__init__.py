"""The phantom corpus: rendered lesions in the published layouts of eleven datasets.

`write` makes the data folder; `draw` and `render` are for stages that need more lesions.
"""

from __future__ import annotations

from dermaflux.phantom.folder import write
from dermaflux.phantom.lesion import Lesion, bayes_auc, draw, likelihood_ratio
from dermaflux.phantom.render import render

__all__ = ["Lesion", "bayes_auc", "draw", "likelihood_ratio", "render", "write"]
