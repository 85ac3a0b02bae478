"""The files of a registered version: how they are written and fetched."""
