"""One ONNX file: dynamic batch where the model allows it, proven against onnxruntime before anyone sees it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from peelcli import files
from peelcli.config import GraphForm, pick
from peelcli.errors import CheckFailed, ExportError
from peelcli.export.attention import WrittenOutAttention
from peelcli.export.contents import annotate
from peelcli.export.inputs import Example, Sizes, all_open, dynamic_shapes, labels, not_open, returned, run
from peelcli.export.modules import evaluated, precisions, relative_difference
from peelcli.export.names import graph_names, output_names
from peelcli.garbage import no_collection
from peelcli.onnxdata import LARGEST
from peelcli.onnxnames import OPSET
from peelcli.rebuild.compare import quietly
from peelcli.records import Check, Subject
from peelcli.tensors import byte_size, tensors_in

if TYPE_CHECKING:
    import onnx
    import onnxruntime

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OLDEST, EXPORTED, DEFAULT = 11, 18, 20  # opsets: that of the first rules, what torch can write, what it writes unasked
BATCHES = (2, 1, 3)  # 2 first: the size that is exported (the exporter specialises a batch of 1)
AS_USUAL = pick(GraphForm, {})
TOLERANCE = 1e-4
HALF_TOLERANCE = 2e-2  # twenty times the spacing of float16 at 1
_RUNNABLE = {torch.float32, torch.float16}  # what onnxruntime has kernels for on a CPU, casts included


class _Unfit(Exception):
    """onnxruntime can't run what was exported; another way of exporting may do."""


class _NotExportable(ExportError):
    """The exporter can't express the model; with a fixed batch it may."""


@dataclass(frozen=True, slots=True)
class _Case:
    """An input, what torch makes of it, and what the graph calls that."""

    example: Example
    outputs: list[torch.Tensor]
    names: list[str]


@dataclass(frozen=True, slots=True)
class _File:
    """What is written: where, what it is called in messages, the notes in it, and how."""

    path: Path
    name: str
    metadata: Mapping[str, str]
    form: GraphForm


def require() -> None:
    """Refuse early where the packages are missing.

    Raises:
        ExportError: with the command that installs them.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ExportError(f"writing .onnx needs {', '.join(missing)}", hint=f"pip install {' '.join(missing)}")


def write(
    slim: Subject, metadata: Mapping[str, str], path: Path, name: str, form: GraphForm = AS_USUAL
) -> tuple[Check, ...]:
    """Export a model in eval mode to one ONNX file and prove it.

    Args:
        slim: not changed. Inputs that share the leading size of the first one get a dynamic batch.
        metadata: goes into the file's metadata_props.
        path: the staged file.
        name: how the file is called in messages.
        form: its opset, and sizes that stay open beside the batch.

    Returns:
        The checks that held: `onnx_checker`, `onnx_parity`, `dynamic_batch`, `dynamic_sizes` where sizes were asked for
        or the model's own ONNX file leaves some open, `onnx_precision` where the precision is not the model's,
        `onnx_opset` where the operators are newer than those of that file.

    Raises:
        ExportError: the model can't be expressed in ONNX, not in one file, or not as asked.
        CheckFailed: the file is not right, or onnxruntime's outputs are not torch's.
    """
    require()
    example = Example.of(slim.inputs)
    own = precisions(slim.module)
    foreign = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in own - {torch.float32}))
    ways = [*([None] if own <= _RUNNABLE else []), *([torch.float32] if foreign else [])]
    file, problem = _File(path, name, metadata, form), ""
    for precision in ways:
        inputs = example if precision is None else example.to(precision)
        try:
            checks = _in_its_opset(evaluated(slim.module, precision), inputs, file)
        except _Unfit as error:
            problem = str(error)
            continue
        if precision is None:
            return checks
        note = f"onnxruntime can't run {foreign} on a CPU: the file is in float32, its inputs and outputs too"
        return (*checks, Check("onnx_precision", None, note=note))
    raise CheckFailed(f"onnxruntime does not run {name}: {problem}; nothing was written")


def _in_its_opset(module: nn.Module, example: Example, file: _File) -> tuple[Check, ...]:
    """No newer operators than in the ONNX file that the model came from, unless asked; what runs that may be old."""
    known: int = module.meta.get(OPSET, DEFAULT) if isinstance(module, fx.GraphModule) else DEFAULT
    if file.form.opset or known >= DEFAULT:
        return _write_in(module, example, file)
    opset = min(max(known, OLDEST), EXPORTED)
    try:
        checks = _write_in(module, example, replace(file, form=file.form.model_copy(update={"opset": opset})))
        problem = f"{OLDEST} is the oldest that can be written" if opset > known else ""
    except _NotExportable as error:
        checks, problem = _write_in(module, example, file), error.message
    note = f"newer than {known}, that of the file which the model came from: {problem}"
    return (*checks, Check("onnx_opset", None, note=note)) if problem else checks


def _write_in(module: nn.Module, example: Example, file: _File) -> tuple[Check, ...]:
    """With sizes that may change as far as that can be had: those asked for, those of its own file, the batch."""
    if byte_size(module) > LARGEST:
        raise ExportError(
            f"the weights need {byte_size(module) / 1e9:.1f} GB, one ONNX file holds at most 2 GB",
            hint="write .safetensors or .pt with --out",
        )
    sizes, asked = all_open(module, example, file.form.dynamic)
    names = labels(sizes)
    found = _freely(module, example, sizes, file) if sizes else ()
    if sizes and not isinstance(found, str):
        note = names if asked else f"{names}: as in the file that the model came from"
        return (*found, Check("dynamic_sizes", True, note=note))
    if asked and isinstance(found, str):
        raise not_open(sizes, found)
    more = (Check("dynamic_sizes", None, note=f"not available, all but the batch are fixed: {found}"),) if sizes else ()
    found = _freely(module, example, (), file)
    if not isinstance(found, str):
        return (*found, *more)
    cases = _cases(module, example, (example.batch,) * len(BATCHES))
    checks = _attempt(module, example, cases, file)
    size = f"the batch is fixed to {example.batch}" if example.batch else "the shapes are fixed"
    return (*checks, Check("dynamic_batch", None, note=f"not available, {size}: {found}"), *more)


def _freely(module: nn.Module, example: Example, sizes: Sizes, file: _File) -> tuple[Check, ...] | str:
    """With a batch that may change, and with these sizes; else the reason why that can't be had."""
    if not example.batch:
        return "no input has a batch dimension"
    try:
        cases = _cases(module, example, BATCHES, sizes)
    except Exception as error:  # the user's own code: anything can come out of it
        return f"the model itself fails at {'other sizes' if sizes else 'another batch size'}: {_reason(error)}"
    first = example.resized(BATCHES[0])
    try:
        checks = _attempt(module, first, cases, file, dynamic_shapes(module, first, sizes))
    except (_Unfit, _NotExportable, CheckFailed) as error:
        return str(error)
    return (*checks, Check("dynamic_batch", True, note=f"batch sizes {', '.join(map(str, sorted(BATCHES)))}"))


def _cases(module: nn.Module, example: Example, batches: Iterable[int], sizes: Sizes = ()) -> tuple[_Case, ...]:
    """What torch makes of other inputs, larger from case to case; on a copy: some models keep tensors between calls."""
    copied = evaluated(module)
    examples = (example.shuffled(batch, seed).stretched(sizes, seed) for seed, batch in enumerate(batches))
    found = ((other, returned(copied, other)) for other in examples)
    return tuple(_Case(other, tensors_in(outputs), output_names(outputs)) for other, outputs in found)


def _attempt(
    module: nn.Module,
    example: Example,
    cases: Sequence[_Case],
    file: _File,
    shapes: dict[str, Any] | None = None,
) -> tuple[Check, ...]:
    inputs, outputs = graph_names(module, example, cases[0].names)
    proto = _export(module, example, inputs, outputs, shapes, file.form.opset)
    annotate(proto, file.metadata, module)
    _lower(proto, file.form.opset)
    opset = next((entry.version for entry in proto.opset_import if not entry.domain), 0)
    if opset != (file.form.opset or opset):
        raise ExportError(
            f"torch's exporter writes this model in opset {opset}, and not in {file.form.opset}",
            hint=f"give --opset {opset}, or an older one",
        )
    files.write_bytes(file.path, _serialised(proto))
    del proto
    _check_file(file.path, file.name)
    file_is_right = Check("onnx_checker", True, note=f"opset {opset}")
    worst = _parity(file.path, inputs, cases)
    tolerance = HALF_TOLERANCE if torch.float16 in precisions(module) else TOLERANCE
    if not worst <= tolerance:
        hint = "please report this with the model's source; .pt and .safetensors are not affected"
        if _draws(module, cases[0]):
            hint = "this model's outputs are random, in eval mode too (dropout that is always on?): write .pt instead"
        raise CheckFailed(
            f"torch and onnxruntime differ by {worst:.1e} (relative), over {tolerance:.0e}: {file.name} is not written",
            hint=hint,
        )
    if not any(output.any() for case in cases for output in case.outputs):
        return file_is_right, Check("onnx_parity", None, note="every output is zero, nothing to compare")
    return file_is_right, Check("onnx_parity", True, worst, tolerance)


def _lower(proto: onnx.ModelProto, opset: int | None) -> None:
    """Into the opset that was asked for, where torch's exporter has stopped short of it."""
    if opset is None or opset >= EXPORTED:
        return
    from peelcli.export import opsets

    try:
        opsets.lower(proto, opset)
    except opsets.NoOlderForm as missing:
        raise _NotExportable(f"opset {opset} has no {missing}", hint="give a newer --opset") from missing


def _draws(module: nn.Module, case: _Case) -> bool:
    """Whether other random numbers give other outputs."""
    again = run(evaluated(module), case.example, seed=1)
    return any(not torch.equal(one, other) for one, other in zip(case.outputs, again, strict=True))


# --- export -----------------------------------------------------------------------------------------------------------


def _export(
    module: nn.Module,
    example: Example,
    inputs: list[str],
    outputs: list[str],
    shapes: dict[str, Any] | None,
    opset: int | None,
) -> onnx.ModelProto:
    """Run torch's exporter; where it fails, once more with attention written out.

    Its own way of taking fused attention apart trips over strides and over more than four dimensions (torch 2.13).
    """
    try:
        return _program(module, example, inputs, outputs, shapes, opset)
    except Exception as first:  # the exporter and the user's forward can raise anything
        try:
            with sdpa_kernel(SDPBackend.MATH), WrittenOutAttention():
                return _program(module, example, inputs, outputs, shapes, opset)
        except Exception:  # the first complaint is the one that the user can read
            raise _NotExportable(
                f"the model can't be exported to ONNX: {_reason(first)}",
                hint="write .pt or .safetensors with --out, or change what the message speaks of in the model",
            ) from first


def _program(
    module: nn.Module,
    example: Example,
    inputs: list[str],
    outputs: list[str],
    shapes: dict[str, Any] | None,
    opset: int | None,
) -> onnx.ModelProto:
    """One run of torch's exporter, without its chatter and its files."""
    with _quiet(), no_collection():  # an export makes millions of objects that live on: a tenth of its time
        program = torch.onnx.export(
            evaluated(module),
            (*example.arguments, {}),  # the last dict is taken for named arguments: it must be none of ours
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=inputs,
            output_names=outputs,
            opset_version=opset and max(opset, EXPORTED),
            external_data=False,
            verbose=False,
        )
        assert program is not None, "the exporter returns a program where it is given no file"
        proto: onnx.ModelProto = program.model_proto
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints to stdout as well."""
    with quietly(), contextlib.redirect_stdout(io.StringIO()):
        yield


def _serialised(proto: onnx.ModelProto) -> bytes:
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf raises different types for a message that is too long
        raise ExportError(
            f"the model does not fit into one ONNX file: {_reason(error)}", hint="write .safetensors or .pt with --out"
        ) from error


# --- proof ------------------------------------------------------------------------------------------------------------


def _check_file(path: Path, name: str) -> None:
    from onnx import checker

    try:
        checker.check_model(str(path), full_check=True)
    except Exception as error:  # checker.ValidationError and what shape inference raises
        raise CheckFailed(f"onnx.checker refuses {name}: {_reason(error)}, nothing was written") from error


def _parity(path: Path, names: list[str], cases: Iterable[_Case]) -> float:
    """The largest relative difference between onnxruntime and torch over all cases.

    Raises:
        _Unfit: onnxruntime can't load or run the file.
    """
    session = _session(path)
    known = {value.name for value in session.get_inputs()}
    worst = 0.0
    for case in cases:
        tensors = zip(names, case.example.tensors(), strict=True)
        feed = {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors if name in known}
        try:
            found = session.run(None, feed)
        except Exception as error:  # onnxruntime's own types, one for each status code
            raise _Unfit(f"{_reason(error)} (batch size {case.example.batch})") from error
        worst = max(worst, relative_difference([torch.as_tensor(value) for value in found], case.outputs))
    return worst


def _session(path: Path) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors come back as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _Unfit(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """The root cause in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
