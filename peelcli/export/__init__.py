"""Slim models as files, each proven before it gets its name."""
