"""Cutting a copy of the model, and the proof that the cut is right."""
