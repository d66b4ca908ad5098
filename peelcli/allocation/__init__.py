"""Widths for a budget: pure arithmetic on names and ints."""
