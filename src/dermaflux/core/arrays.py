"""Short names for the arrays that functions take and return."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
"""Any array; the docstring of the function that takes it gives shape and range."""
Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""(H, W, 3) of one image or (B, H, W, 3) of a batch, 0 to 255."""
