"""What leaves the project: corpus, pool, LoRA and champion as the Hugging Face Hub shows them."""
