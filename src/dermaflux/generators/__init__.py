"""Backbone, fine-tuning and sampling of the image generator."""

import logging

# diffusers imports it wherever it is installed, and on some CPUs it warns of a kernel that only
# 4-bit layers would use.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
