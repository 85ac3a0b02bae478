"""Images of one photograph, found across datasets."""
