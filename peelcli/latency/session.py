"""A file in onnxruntime, ready to be called again and again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from peelcli.errors import InputError, SourceError
from peelcli.inputtext import InputSpec
from peelcli.latency import inputs, providers
from peelcli.timings import Conditions

_QUIET = 4  # its errors come back as exceptions


class Session:
    """One model with its inputs in place; every call does the same work.

    Attributes:
        name: of the file, for messages.
        shapes: of the inputs, by name.
    """

    def __init__(
        self, model: Path | bytes, conditions: Conditions, given: Sequence[InputSpec] = (), name: str = "", **more: Any
    ) -> None:
        """Load a model, and put its inputs where the provider computes.

        Args:
            model: a file, or what would be in one.
            conditions: provider, threads and batch size.
            given: shapes that the file leaves open.
            name: how the model is called in messages; a file's own name where none is given.
            more: further attributes of SessionOptions.

        Raises:
            SourceError: the file can't be loaded.
            InputError: the inputs can't be made up, or the model does not run on them.
        """
        self.name = name or (str(model) if isinstance(model, Path) else "the model")
        self._session = _load(model, self.name, conditions, more)
        specs = inputs.specs(inputs.wanted_by(self._session), given, conditions.batch, self.name)
        self.shapes = {name: spec.shape for name, spec in specs.items()}
        self._arrays = inputs.feed(specs)
        self._binding = self._bound("cpu" if conditions.provider == "cpu" else _memory(conditions.provider))
        alone = conditions.provider == "cpu" and conditions.threads == 1
        self._clock = time.thread_time if alone else time.perf_counter
        self._first_call()

    def call(self) -> float:
        """Run once; returns the seconds that it took.

        Copies between the memories of CPU and GPU do not count. With one CPU thread neither does the time that the
        system gave to other processes meanwhile: a long call is interrupted more often than a short one, so that on a
        busy machine their ratio would be of luck.
        """
        start = self._clock()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return self._clock() - start

    def end_profiling(self) -> Path:
        """Where onnxruntime wrote what each node took."""
        return Path(self._session.end_profiling())

    def _bound(self, memory: str) -> Any:
        binding = self._session.io_binding()
        for name, array in self._arrays.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, memory, 0))
        for value in self._session.get_outputs():
            binding.bind_output(value.name, memory)
        return binding

    def _first_call(self) -> None:
        try:
            self.call()
        except Exception as error:  # onnxruntime's own types, one for each status code
            told = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in self.shapes.items())
            raise InputError(
                f"{self.name} does not run on {told}: {_line(error)}", hint="give another shape with --input"
            ) from error


def _load(model: Path | bytes, name: str, conditions: Conditions, more: dict[str, Any]) -> Any:
    if isinstance(model, Path) and not model.is_file():
        raise SourceError(f"there is no file {model}", hint="check the path")
    if isinstance(model, Path) and model.suffix.lower() not in (".onnx", ".ort"):
        raise SourceError(
            f"{model} is no .onnx file, and onnxruntime runs nothing else",
            hint="write one: peel prune MODEL --flops 50% --out slim.onnx",
        )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = conditions.threads
    options.inter_op_num_threads = 1
    # Threads that spin on after a call would take the time of the model whose turn is next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    for attribute, value in more.items():
        setattr(options, attribute, value)
    provider = providers.full(conditions.provider)
    try:
        source = str(model) if isinstance(model, Path) else model
        session = onnxruntime.InferenceSession(source, options, providers=[provider])
    except Exception as error:  # onnxruntime's own types, one for each status code
        raise SourceError(f"onnxruntime can't load {name}: {_line(error)}", hint=_load_hint(str(error))) from error
    if provider not in session.get_providers():
        raise SourceError(
            f"onnxruntime could not start {conditions.provider} here, and went on without it",
            hint="see whether its driver and libraries are installed; --provider cpu works everywhere",
        )
    return session


def _memory(provider: str) -> str:
    return "cuda" if provider in ("cuda", "tensorrt", "nvtensorrtrtx") else "cpu"


def _load_hint(problem: str) -> str:
    if "external" in problem.lower() or "No such file" in problem:
        return "the file keeps its weights in another file: put that beside it"
    return "is it an ONNX model, and whole?"


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
