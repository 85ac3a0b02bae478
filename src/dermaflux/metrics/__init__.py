"""Metrics of one classifier: pure functions of labels and scores."""
