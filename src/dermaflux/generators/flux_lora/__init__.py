"""FLUX with a LoRA adapter, trained by rectified flow (paper section 2.2)."""
