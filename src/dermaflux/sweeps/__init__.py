"""Named grids of experiments: read, planned, queued through DVC, and their results collected."""
