"""The table of the project: every image, real or synthetic, is a row of these Parquet shards.

``datasets.load_dataset("parquet", data_dir="corpus")`` opens the shards as they are, with the
``image`` column decoded and the splits taken from the file names. Captions live in a separate
table, keyed by ``image_id``, so that captioning again never rewrites images.
"""

from dermaflux.core.table.reading import (
    candidates,
    check_shard,
    columns,
    decoded,
    images,
    is_whole,
    metadata,
    pixels,
    shards,
)
from dermaflux.core.table.schema import (
    CHOICE,
    CHOSEN_SCHEMA,
    COLUMNS,
    METADATA,
    SCALES,
    SCHEMA,
    SPLITS,
)
from dermaflux.core.table.writing import (
    ShardWriter,
    settings_json,
    shard_name,
    write,
    write_shard,
)

__all__ = [
    "CHOICE",
    "CHOSEN_SCHEMA",
    "COLUMNS",
    "METADATA",
    "SCALES",
    "SCHEMA",
    "SPLITS",
    "ShardWriter",
    "candidates",
    "check_shard",
    "columns",
    "decoded",
    "images",
    "is_whole",
    "metadata",
    "pixels",
    "settings_json",
    "shard_name",
    "shards",
    "write",
    "write_shard",
]
