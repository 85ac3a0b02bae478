"""Which images stay, and in which split."""
