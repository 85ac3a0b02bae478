"""Named grids of experiments: planned, queued through DVC, and their results laid out."""
