"""Opening the fine-tuned pipeline and sampling from it."""
