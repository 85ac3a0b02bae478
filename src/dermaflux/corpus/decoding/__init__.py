"""From file bytes to checked pixels, with what is measured on them."""
