"""From published downloads to one audited image table."""
