"""How informative each channel and each group is: one file a scorer, one table of them (table.py)."""
