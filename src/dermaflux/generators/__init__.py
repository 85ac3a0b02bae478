"""Backbone, fine-tuning and sampling of the image generator."""

import logging

# Parameters import the schema of every generator, which lies in a folder below this one and itself
# needs the field types of the parameters: whichever is imported first, parameters come first.
import dermaflux.params  # noqa: F401

# diffusers imports it wherever it is installed, and on some CPUs it warns of a kernel that only
# 4-bit layers would use.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
