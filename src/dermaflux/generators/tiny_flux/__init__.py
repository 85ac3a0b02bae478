"""A complete FluxPipeline of a few million parameters, trained from scratch."""
