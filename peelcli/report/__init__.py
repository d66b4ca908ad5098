"""A finished run, or what could be done to a model, as text and as JSON."""
