"""Models by name: `torchvision:resnet50`, `timm:...`, `pytorchcv:...`, `hf:...`; built here, never downloaded."""

from __future__ import annotations

import difflib
import importlib
import inspect
import io
import re
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from torch import nn

from peelcli.errors import SourceError
from peelcli.sources import usercode
from peelcli.sources.usercode import RANDOM_WEIGHTS

Built = tuple[nn.Module, tuple[str, ...]]

# Which head a transformers config gets, the first one that it has.
_SEQUENCE_HEADS = ("AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq")  # where there is an encoder and a decoder
_HEADS = (
    "AutoModelForImageClassification",
    "AutoModelForSemanticSegmentation",
    "AutoModelForObjectDetection",
    "AutoModelForDepthEstimation",
    "AutoModelForSequenceClassification",
    "AutoModelForAudioClassification",
    "AutoModelForCausalLM",
    "AutoModel",
)


def is_name(spec: str) -> bool:
    """Whether a text has the form `package:name` with a package that builds models."""
    return spec.partition(":")[0] in BUILDERS and ":" in spec


def build(spec: str) -> Built:
    """Build a model by name, with random weights unless it comes from a local folder with weights in it.

    Returns:
        The module, and notes on its weights.

    Raises:
        SourceError: the package is not installed, or knows no such name.
    """
    package, _, name = spec.partition(":")
    if not name:
        raise SourceError(f"{spec} names no model", hint=f"write {package}:NAME")
    with warnings.catch_warnings(), usercode.seeded(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")  # packages talk about weights while they build; nothing of it is ours
        return BUILDERS[package](name)


def _torchvision(name: str) -> Built:
    models = _package("torchvision.models")
    _known("torchvision", name, models.list_models())
    arguments: dict[str, Any] = {"weights": None}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        arguments["weights_backbone"] = None  # its default downloads
    return _made(f"torchvision:{name}", lambda: models.get_model(name, **arguments)), (RANDOM_WEIGHTS,)


def _timm(name: str) -> Built:
    timm = _package("timm")
    _known("timm", name.partition(".")[0], timm.list_models())  # what follows a dot names pretrained weights
    return _made(f"timm:{name}", lambda: timm.create_model(name, pretrained=False)), (RANDOM_WEIGHTS,)


def _pytorchcv(name: str) -> Built:
    provider = _package("pytorchcv.model_provider")
    _known("pytorchcv", name.lower(), getattr(provider, "_models", ()))
    return _made(f"pytorchcv:{name}", lambda: provider.get_model(name, pretrained=False)), (RANDOM_WEIGHTS,)


def _hf(name: str) -> Built:
    transformers = _package("transformers")
    folder = Path(name)
    if (folder / "config.json").is_file():
        return _hf_folder(transformers, folder)
    if folder.is_dir():
        raise SourceError(f"{name} has no config.json", hint="give a folder that save_pretrained wrote")
    if "/" in name or "\\" in name:
        raise SourceError(
            f"hf:{name} is no local folder, and peel downloads nothing",
            hint=f"download it first: hf download {name} --local-dir FOLDER, then give hf:FOLDER",
        )
    _known("hf", name, transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES)
    config = transformers.AutoConfig.for_model(name)
    return _made(f"hf:{name}", lambda: _with_head(transformers, config)), (RANDOM_WEIGHTS,)


def _hf_folder(transformers: Any, folder: Path) -> Built:
    """A folder that save_pretrained wrote; code in it is not run, attention comes from torch, not from the hub."""
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "attn_implementation": "eager"}
    spec = f"hf:{folder}"
    config = _made(spec, lambda: transformers.AutoConfig.from_pretrained(folder, **local))
    cls = _architecture(transformers, config)
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        make = (lambda: cls(config)) if cls is not None else (lambda: _with_head(transformers, config))
        return _made(spec, make), (RANDOM_WEIGHTS,)
    cls = cls or transformers.AutoModel
    model = _made(spec, lambda: cls.from_pretrained(folder, config=config, local_files_only=True))
    return model, (f"weights taken from {folder.name}",)


def _architecture(transformers: Any, config: Any) -> Any:
    """The class that a config names, where transformers has it; the name comes from a file."""
    named = (getattr(config, "architectures", None) or [""])[0]
    cls = getattr(transformers, named, None)
    return cls if isinstance(cls, type) and issubclass(cls, transformers.PreTrainedModel) else None


def _with_head(transformers: Any, config: Any) -> Any:
    for head in (*(_SEQUENCE_HEADS if getattr(config, "is_encoder_decoder", False) else ()), *_HEADS):
        auto = getattr(transformers, head)
        if type(config) in auto._model_mapping:
            return auto.from_config(config, attn_implementation="eager")
    raise ValueError(f"no model class for {type(config).__name__}")


def _package(name: str) -> Any:
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or package).partition(".")[0]
        what = f"{package} is not installed" if missing == package else f"{package} needs {missing}"
        raise SourceError(what, hint=f"pip install {missing}") from None
    except Exception as error:  # packages that don't fit each other raise anything on import
        raise SourceError(
            f"{package} is installed but can't be imported: {usercode.told(error)}",
            hint=f"reinstall it to match torch: pip install --force-reinstall {package}",
        ) from error


def _known(package: str, name: str, names: Iterable[str]) -> None:
    names = list(names)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or _containing(name, names)
    hint = f"did you mean {', '.join(f'{package}:{other}' for other in near)}?" if near else "check the name"
    raise SourceError(f"{package} has no model named {name}", hint=hint)


def _containing(name: str, names: list[str]) -> list[str]:
    stem = re.split(r"[\W_\d]", name)[0]
    return [other for other in names if stem and stem in other][:3]


def _made(spec: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except (Exception, SystemExit) as error:
        raise SourceError(f"{spec} can't be built: {usercode.told(error)}", hint="see the message") from error


BUILDERS: dict[str, Callable[[str], Built]] = {
    "torchvision": _torchvision,
    "timm": _timm,
    "pytorchcv": _pytorchcv,
    "hf": _hf,
}
