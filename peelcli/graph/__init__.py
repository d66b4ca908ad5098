"""Which channels belong together, and what widths cost."""
