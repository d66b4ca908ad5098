"""Which globals of a pickle may be handed out, so that loading it runs no code that the file chose.

Three rules. A class is allowed when an instance can be made without running any code of its own: modules, and plain
data. A function is allowed as a value when it is a known activation, and never called. What is called with arguments
from the file is torch's own rebuild functions and a few constructors of plain values, nothing else. Importing a module
runs it, so only known model packages are imported for a file; everything else must be there already or come from
the user (--code).
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from types import FunctionType, ModuleType
from typing import Any

from torch import nn
from torch._weights_only_unpickler import _get_allowed_globals

from peelcli.errors import SourceError, UntrustedPickle
from peelcli.sources.scan import Global, Scan

MODEL_PACKAGES = frozenset(
    {"torch", "torchvision", "torchaudio", "timm", "transformers", "pytorchcv", "efficientnet_pytorch"}
    | {"efficientnet_lite_pytorch", "segmentation_models_pytorch", "pretrainedmodels", "facenet_pytorch", "open_clip"}
    | {"monai", "kornia"}
)
_LAYER_PACKAGES = ("torch.nn.", "torchvision.ops.", "timm.layers.")
_ACTIVATIONS = frozenset(
    {f"torch.nn.functional.{name}" for name in ("relu", "relu6", "elu", "selu", "celu", "silu", "mish", "leaky_relu")}
    | {f"torch.nn.functional.{name}" for name in ("hardswish", "hardsigmoid", "hardtanh", "sigmoid", "tanh", "glu")}
    | {f"torch.nn.functional.{name}" for name in ("softsign", "tanhshrink", "softmax", "log_softmax")}
    | {f"torch._C._nn.{name}" for name in ("gelu", "softplus", "log_sigmoid")}
)
# Constructors of plain values: safe with any arguments. They turn up in training checkpoints beside the weights.
_VALUES = frozenset(
    {"builtins.frozenset", "builtins.range", "builtins.slice", "pathlib.PosixPath", "pathlib._local.PosixPath"}
    | {"numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
)
_RECORDS = frozenset({"argparse.Namespace", "types.SimpleNamespace"})
_ABSENT = object()


class Partial(functools.partial[Any]):
    """functools.partial for pickles: it wraps layers and activations only, so that no file can aim it elsewhere."""

    def __new__(cls, function: Any, /, *args: Any, **keywords: Any) -> Partial:
        """Refuse anything but a layer or an activation."""
        _check_wrapped(function)
        return super().__new__(cls, function, *args, **keywords)

    def __setstate__(self, state: Any) -> None:
        _check_wrapped(state[0])
        super().__setstate__(state)  # type: ignore[misc]

    def __reduce__(self) -> Any:
        return (functools.partial, *super().__reduce__()[1:])  # saved again it is an ordinary partial


def _check_wrapped(function: Any) -> None:
    where = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    layer = isinstance(function, type) and issubclass(function, nn.Module) and where.startswith(_LAYER_PACKAGES)
    if not layer and where not in _ACTIVATIONS:
        raise ValueError(f"functools.partial of {where or function!r}")


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What may be handed out for a global; `value` is _ABSENT where it can't be found."""

    value: Any
    made: bool = False  # as a value, and for making empty instances
    called: bool = False  # with arguments from the file


def review(path: str, found: Scan, code: ModuleType | None) -> list[tuple[Any, str]]:
    """Decide on all that a pickle would do.

    Args:
        path: the file, for messages.
        found: what `scan` saw in it.
        code: the user's module from --code, if any.

    Returns:
        (object, full name) for `torch.serialization.safe_globals`, beyond what torch allows by itself.

    Raises:
        UntrustedPickle: it would do more than make modules, tensors and plain data.
        SourceError: a class is missing.
    """
    allowed: list[tuple[Any, str]] = []
    refused, missing = sorted(found.odd), []
    for wanted in sorted(found.imports):
        if str(wanted) in _get_allowed_globals():
            continue
        verdict = _judge(wanted, code)
        if verdict.value is _ABSENT and wanted not in found.called:
            missing.append(wanted)
        elif verdict.called or (verdict.made and wanted not in found.called):
            allowed.append((verdict.value, str(wanted)))
        else:
            refused.append(str(wanted))
    if refused:
        raise UntrustedPickle(path, refused)
    if missing:
        raise _missing(path, missing, code)
    return allowed + _numpy_types(allowed)


def _judge(wanted: Global, code: ModuleType | None) -> _Verdict:
    name = str(wanted)
    if name == "functools.partial":
        return _Verdict(Partial, made=True, called=True)
    value = resolve(wanted, code)
    if value is _ABSENT:
        return _Verdict(_ABSENT)
    if name in _VALUES:
        return _Verdict(value, made=True, called=True)
    if name in _RECORDS or name in _ACTIVATIONS:
        return _Verdict(value, made=True)
    mine = code is not None and getattr(value, "__module__", None) == code.__name__
    if isinstance(value, type) and (mine or value.__module__ == wanted.module):
        known = mine or wanted.module.partition(".")[0] in MODEL_PACKAGES
        return _Verdict(value, made=_is_module(value) or (known and _is_data(value)), called=_is_choice(value))
    return _Verdict(value, made=mine and isinstance(value, FunctionType))


def _is_module(cls: type) -> bool:
    """A module class that runs nothing of its own before torch fills its instance, nor when that goes."""
    return issubclass(cls, nn.Module) and cls.__new__ is object.__new__ and not hasattr(cls, "__del__")


def _is_choice(cls: type) -> bool:
    """An enumeration with members: a call of it looks one up."""
    return issubclass(cls, Enum) and len(cls.__members__) > 0


def _is_data(cls: type) -> bool:
    """A class whose instances come and go without any code of its own: a config object, a named tuple, a choice."""
    if any(hasattr(cls, hook) for hook in ("__setstate__", "__del__")):
        return False
    if issubclass(cls, tuple):
        return hasattr(cls, "_fields") and cls.__bases__ == (tuple,)
    return cls.__new__ is object.__new__


def resolve(wanted: Global, code: ModuleType | None) -> Any:
    """Find what a global names, importing nothing but known model packages; _ABSENT where it is not there."""
    bring = getattr(code, wanted.name, _ABSENT) if code is not None else _ABSENT
    if wanted.module == "__main__" and bring is not _ABSENT:
        return bring  # a module pickled by the script that defines it
    path = wanted.module.replace("numpy.core.", "numpy._core.")  # its name before numpy 2
    try:
        module = sys.modules.get(path) or (importlib.import_module(path) if _may_import(path) else None)
        return getattr(module, wanted.name, bring)
    except Exception:  # whatever a package raises on import, its classes are not there
        return bring


def _may_import(module: str) -> bool:
    package, *inner = module.split(".")
    return package in MODEL_PACKAGES and not any(part.startswith("_") for part in inner)


def _numpy_types(allowed: Iterable[tuple[Any, str]]) -> list[tuple[Any, str]]:
    """A numpy dtype gets its state after it is made, so that torch must know the concrete classes as well."""
    if not any(name == "numpy.dtype" for _, name in allowed):
        return []
    import numpy as np

    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefdFDUS"}
    return [(kind, f"numpy.dtypes.{kind.__name__}") for kind in kinds]


def _missing(path: str, missing: list[Global], code: ModuleType | None) -> SourceError:
    names = ", ".join(map(str, missing))
    packages = {wanted.module.partition(".")[0] for wanted in missing} & MODEL_PACKAGES
    absent = sorted(package for package in packages if package not in sys.modules)
    if absent:
        return SourceError(f"{path} needs classes that are not installed: {names}", f"pip install {' '.join(absent)}")
    if code is not None:
        return SourceError(
            f"{path} needs classes that {code.__file__} does not define: {names}",
            hint="give the file that defines them with --code FILE.py",
        )
    return SourceError(
        f"{path} needs classes that are not here: {names}",
        hint="bring them with --code FILE.py, the file that defines them",
    )
