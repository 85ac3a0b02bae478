"""Sections on the audit's groups: control, separability, coverage and artefacts."""
