"""LoRA files in the namings of diffusers and kohya."""
