"""One module per published dataset."""
