"""Calibration data -> Samples: folders of images, tensor files, functions of the user's, and Python's own."""

from peelcli.sources.data.labels import class_ids
from peelcli.sources.data.load import load_samples
from peelcli.sources.data.metric import evaluate_metric, load_loss, load_metric, name_of
from peelcli.sources.data.streams import Stream, stream

__all__ = ["Stream", "stream", "class_ids", "evaluate_metric", "load_loss", "load_metric", "load_samples", "name_of"]
