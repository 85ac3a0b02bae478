"""What stands for a model's weights: the released files and their classes."""
