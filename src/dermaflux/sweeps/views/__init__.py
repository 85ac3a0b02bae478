"""DVC's plots and its graph of stages in a form that a person reads without a network."""
