"""Single images on the page: real beside synthetic, and captions with what they were made from."""
