"""One adapter per published dataset."""
