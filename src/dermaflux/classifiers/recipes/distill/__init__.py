"""Distillation: a student learns from labels and from the logits of a trained teacher."""
