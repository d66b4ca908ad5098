"""What a user asked for, checked before anything is loaded.

No torch, so that a typo is told at once; only whether a GPU is here has to be asked of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peelcli import config, files
from peelcli.config import Budget, Calibration, GraphForm, Options
from peelcli.errors import UsageError
from peelcli.regimen import Rounds, Training
from peelcli.scoring import table

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None

_OF_REAL_SAMPLES = ("validation", "image_size", "mean", "std", "metric")
_OF_SAMPLES = ("samples", *_OF_REAL_SAMPLES)
_READ = ("data", "validation", "weights", "factory", "code", "inputs", "metric", "loss")  # settings that name files
_GIVE = "give --data: a folder of images, .npy/.npz/.pt/.safetensors, or FILE.py:FUNCTION"


@dataclass(frozen=True, slots=True)
class Lessons:
    """How a slim model is trained, on what, and the files to write.

    Attributes:
        device: as the user wrote it; None for a GPU where there is one.
        seed: of everything random.
        most: samples that are read at most; None for all.
    """

    training: Training
    calibration: Calibration
    paths: tuple[Path, ...]
    device: str | None
    seed: int
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A budget, the way to it, what is known of the model's use, and the files to write.

    Attributes:
        lessons: how the slim model is trained; None where it is not.
        rounds: in which the budget is reached.
    """

    budget: Budget
    options: Options
    calibration: Calibration
    paths: tuple[Path, ...]
    lessons: Lessons | None = None
    rounds: int = 1


def check(
    model: object, settings: Mapping[str, Any], out: Paths, suffixes: Sequence[str] = files.MODEL_SUFFIXES
) -> Request:
    """Refuse what can't work.

    Args:
        model: a path, or anything that is none.
        settings: fields of Budget, Options, Source and Calibration.
        out: files to write.
        suffixes: the kinds of file that may be written.

    Raises:
        UsageError: the first thing that is wrong.
    """
    paths = check_outputs(model, settings, out, suffixes)
    calibration = config.pick(Calibration, settings)
    wanted = config.pick(Rounds, settings)
    lessons = None
    if wanted.finetune is not None:
        lessons = _lessons({**settings, **wanted.finetune.model_dump(), "samples": None}, calibration, paths)
    else:
        _check_no_training(settings)
    options = config.pick(Options, settings)
    request = Request(config.pick(Budget, settings), options, calibration, paths, lessons, wanted.rounds)
    if settings.get("threads") is not None and request.budget.latency is None:
        raise UsageError("--threads goes with --latency", hint="give --latency, or leave --threads away")
    if wanted.rounds > 1 and request.budget.latency is not None:
        raise UsageError("--rounds can't reach a --latency", hint="give --flops or --params, or leave --rounds away")
    table.check_name(request.options.score, with_data=calibration.data is not None)
    return request


def _check_no_training(settings: Mapping[str, Any]) -> None:
    """Refuse what only training reads where there is none."""
    unread = [name for name in Training.model_fields if settings.get(name) is not None]
    if unread:
        flag = "--" + unread[0].replace("_", "-")
        raise UsageError(
            f"{flag} goes with training, and there is none", hint=f"give --finetune 5epochs, or leave {flag} away"
        )


def check_lessons(model: object, settings: Mapping[str, Any], out: Paths, teacher: object = None) -> Lessons:
    """The same for training a model that is slim already; its original, where there is one, is not written over."""
    paths = check_outputs(model, settings, out, read=(teacher,))
    return _lessons(settings, config.pick(Calibration, settings), paths)


def check_applied(model: object, plan: object, settings: Mapping[str, Any], out: Paths) -> tuple[Path, ...]:
    """The same for carrying out a plan, which is no output; beside weights it is written again, byte for byte."""
    paths = check_outputs(model, settings, out)
    read = {*config.Source.model_fields, *GraphForm.model_fields, *Calibration.model_fields}
    unread = [name for name, value in settings.items() if value is not None and name not in read]
    if unread:
        raise UsageError(
            f"apply takes no {unread[0]}: the plan says how to prune",
            hint=f"leave {unread[0]} away, or make a plan with it",
        )
    for path in paths:
        files.check_unread(path, files_read(plan, {}))
    return paths


def _lessons(settings: Mapping[str, Any], calibration: Calibration, paths: tuple[Path, ...]) -> Lessons:
    """How to train; checkpoints lie beside the first output unless a folder was named."""
    training = config.pick(Training, settings)
    if calibration.data is None or calibration.synthetic:
        raise UsageError("training needs samples" + " that are real" * calibration.synthetic, hint=_GIVE)
    if training.checkpoints is None and paths:
        training = training.model_copy(update={"checkpoints": paths[0].with_suffix(".finetune")})
    if training.checkpoints is None and (training.resume or training.log != "none"):
        flag = "--resume" if training.resume else "--log"
        raise UsageError(f"{flag} needs a folder for checkpoints", hint="give --out, or --checkpoints FOLDER")
    _check_folder(training)
    most = calibration.samples if settings.get("samples") is not None else None
    seed = config.pick(Options, settings).seed
    device = calibration.device if settings.get("device") is not None else None
    return Lessons(training, calibration, paths, device, seed, most)


def _check_folder(training: Training) -> None:
    """Refuse a folder that can't be made, or that holds a run that is not over."""
    if training.checkpoints is None:
        return
    folder = training.checkpoints
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder, checkpoints can't lie in it", hint="give another --checkpoints")
    if not folder.absolute().parent.is_dir():
        raise UsageError(f"the folder {folder.parent} does not exist", hint=f"mkdir -p '{folder.parent}'")
    if not training.resume and files.checkpoints_in(folder):
        raise UsageError(
            f"{folder} holds the checkpoint of a run that is not over",
            hint=f"go on with it: --resume; or give another --checkpoints; or remove '{folder}'",
        )


def check_outputs(
    model: object,
    settings: Mapping[str, Any],
    out: Paths,
    suffixes: Sequence[str] = files.MODEL_SUFFIXES,
    read: Sequence[object] = (),
) -> tuple[Path, ...]:
    """The same for a command that needs no budget; returns the paths.

    None of them may be a file that is read: the model, what a setting names, or one of `read`.
    """
    config.check_names(settings)
    _check_calibration(settings)
    paths = (Path(out),) if isinstance(out, (str, os.PathLike)) else tuple(Path(path) for path in out or ())
    files.check_targets(paths, files_read(model, settings, read), suffixes)
    _check_form(settings, paths)
    return paths


def _check_form(settings: Mapping[str, Any], paths: Sequence[Path]) -> None:
    """Refuse what only files that hold a graph have where none is written."""
    form = config.pick(GraphForm, settings)
    written = {path.suffix.lower() for path in paths}
    for flag, given, kinds in (
        ("--opset", form.opset, (".onnx",)),
        ("--dynamic", form.dynamic, (".onnx", ".pt2")),
    ):
        if given and not written.intersection(kinds):
            raise UsageError(
                f"{flag} is for {' and '.join(kinds)} files, and none is written",
                hint=f"leave {flag} away, or give --out",
            )


def files_read(model: object, settings: Mapping[str, Any], more: Sequence[object] = ()) -> tuple[Path, ...]:
    """Where a command may read from: what is given as a path, with and without ":FUNCTION" behind it.

    A name such as torchvision:resnet50 is told as well; no file is called that.

    Args:
        model: a path, a name, or anything that is neither.
        settings: those that name files are looked at.
        more: as the model.
    """
    given = [model, *more, *(settings.get(name) for name in _READ)]
    texts = [os.fspath(value) for value in given if isinstance(value, (str, os.PathLike))]
    names = dict.fromkeys(name for text in texts for name in (text, text.rpartition(":")[0]) if name)
    return tuple(Path(name) for name in names)


def _check_validation(calibration: Calibration) -> None:
    """Refuse what can't judge: patterns, and the samples that are fitted on."""
    if not isinstance(calibration.validation, (str, os.PathLike)):
        return
    if calibration.validation == config.SYNTHETIC:
        raise UsageError("--validation takes real samples", hint="give some, or leave --validation away")
    if isinstance(calibration.data, (str, os.PathLike)) and Path(calibration.validation) == Path(calibration.data):
        raise UsageError(
            "--validation names the samples of --data",
            hint="give others, or leave --validation away: then a fifth is held out",
        )


def _check_calibration(settings: Mapping[str, Any]) -> None:
    """Refuse what reads samples where there are none, and a device that is not here."""
    calibration = config.pick(Calibration, settings)
    if calibration.data is None:
        unread = [name for name in _OF_SAMPLES if settings.get(name) is not None]
        if settings.get("repair") not in (None, "none"):
            unread.append("repair")
        if unread:
            flag = "--" + unread[0].replace("_", "-")
            raise UsageError(f"{flag} goes with samples, and there are none", hint=f"{_GIVE}, or leave {flag} away")
    elif calibration.synthetic:
        unread = [name for name in _OF_REAL_SAMPLES if settings.get(name) is not None]
        if unread:
            flag = "--" + unread[0].replace("_", "-")
            raise UsageError(f"{flag} goes with real samples", hint=f"{_GIVE}, or leave {flag} away")
    _check_validation(calibration)
    if calibration.device != "cpu":
        from peelcli.devices import check_device  # torch loads here

        check_device(calibration.device)
