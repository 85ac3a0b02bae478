"""Image bytes to pixels and back: the one decoder of ingest, released pools and predictions.

`upright` is for bytes that anyone may have written, within limits of size, time and formats;
`decode_image` for the bytes of a table, which one of our stages encoded. Pure; Pillow is imported
when a function is called.
"""

from dermaflux.core.images.decoding import (
    LARGEST,
    Limits,
    UprightImage,
    decoding,
    load,
    open_image,
    upright,
)
from dermaflux.core.images.formats import ImageError
from dermaflux.core.images.pixels import (
    decode_image,
    encode_png,
    orientation,
    square,
    upright_rgb,
)

__all__ = [
    "LARGEST",
    "ImageError",
    "Limits",
    "UprightImage",
    "decode_image",
    "decoding",
    "encode_png",
    "load",
    "open_image",
    "orientation",
    "square",
    "upright",
    "upright_rgb",
]
