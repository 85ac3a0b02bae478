"""The `imported` captioner: captions written elsewhere, in whatever format they come."""
