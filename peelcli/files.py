"""Files that are whole or absent: written beside their final name, then renamed together."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from peelcli import units
from peelcli.errors import ExportError, PeelError, UsageError

MODEL_SUFFIXES = (".onnx", ".pt", ".pt2", ".safetensors", ".py")
PLAN_SUFFIXES = (".json",)
CHECKPOINT = "checkpoint.pt"  # of a training run that is not over
GENERATED = "# Written by peel"  # how a Python file starts that may be replaced

_written: dict[Path, None] = {}  # what this process has put under its final name, for who has to tell of an interrupt

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def written() -> tuple[Path, ...]:
    """Files that are complete under their final name since this process started, in order."""
    return tuple(_written)


def plan_beside(path: Path) -> Path:
    """Where the plan of a slim checkpoint lies: "slim.safetensors" has "slim.plan.json" beside it."""
    return path.with_suffix(".plan.json")


def weights_beside(path: Path) -> Path:
    """Where the weights of a generated Python file lie: "slim.py" has "slim.safetensors" beside it."""
    return path.with_suffix(".safetensors")


def checkpoints_in(folder: Path) -> list[Path]:
    """Those of a training run that is not over, in one round or several."""
    return [path for path in (folder / CHECKPOINT, *folder.glob(f"round-*/{CHECKPOINT}")) if path.exists()]


def written_for(path: Path) -> tuple[Path, ...]:
    """The files that one output consists of, itself first."""
    beside = {".safetensors": plan_beside, ".py": weights_beside}.get(path.suffix.lower())
    return (path, beside(path)) if beside else (path,)


def check_targets(
    paths: Sequence[Path], sources: Collection[Path] = (), suffixes: Collection[str] = MODEL_SUFFIXES
) -> None:
    """Refuse, before any work, outputs that could not be written at the end.

    Args:
        paths: where the outputs will be.
        sources: files that are read, which the outputs must not replace.
        suffixes: the kinds of file that may be written.

    Raises:
        UsageError: the first output that can't be written, and why.
    """
    seen: dict[Path, Path] = {}
    for path in paths:
        _check_suffix(path, suffixes)
        for target in written_for(path):
            real = _real(target)
            if real in seen:
                raise UsageError(
                    f"{target} would be written twice" if seen[real] == target else f"{seen[real]} is also {target}",
                    hint="give every --out a name of its own",
                )
            seen[real] = target
            _check_place(target, real)
            check_unread(target, sources)


def check_unread(target: Path, sources: Collection[Path]) -> None:
    """Refuse to write over what is read, the weights beside a Python file that peel wrote among it.

    Raises:
        UsageError: the target is one of the sources, under the same name or another.
    """
    if any(_same(_real(target), part) for source in sources for part in _parts(source)):
        raise UsageError(f"the output {target} is the input", hint="write to another name with --out")


def _check_suffix(path: Path, suffixes: Collection[str]) -> None:
    if path.suffix.lower() not in suffixes:
        known = ", ".join(suffixes)
        what = f"has the unknown suffix {path.suffix}" if path.suffix else "has no suffix"
        raise UsageError(f"the output {path} {what}", hint=f"name it with one of {known}")


def _check_place(target: Path, real: Path) -> None:
    """`real` is `target` with its links followed: that is the folder that must take the file."""
    folder = real.parent
    if not folder.exists():
        raise UsageError(f"the folder of the output {target} does not exist", hint=f"mkdir -p '{folder}'")
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder, the output {target} can't lie in it")
    if real.is_dir():
        raise UsageError(f"the output {target} is a folder", hint=f"give a file name, e.g. {target / 'slim.onnx'}")
    hint = "choose a folder that you may write to with --out"
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"the folder of the output {target} is read-only", hint=hint)
    if target.suffix.lower() == ".py" and real.exists() and not _is_generated(real):
        raise UsageError(f"peel did not write {target} and won't replace it", hint="choose another name with --out")
    if real.exists() and not os.access(real, os.W_OK):
        raise UsageError(f"the output {target} exists and is read-only", hint="choose another name with --out")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"no file can be made beside the output {target}: {_reason(error)}", hint=hint) from error


def _is_generated(path: Path) -> bool:
    """Nobody's own code is replaced."""
    try:
        with path.open("rb") as file:
            return file.read(len(GENERATED)) in (GENERATED.encode(), b"")
    except OSError:
        return False


def _parts(source: Path) -> tuple[Path, ...]:
    with suppress(ValueError):  # no name that a file can have
        return written_for(source) if source.suffix.lower() == ".py" and _is_generated(source) else (source,)
    return ()


def _same(target: Path, source: Path) -> bool:
    with suppress(OSError, ValueError):  # one of them is not there, or is no name that a file can have
        return target.samefile(source)
    with suppress(UsageError, ValueError):
        return target == _real(source)
    return False


def _real(path: Path) -> Path:
    """The path with links followed; a link whose end is missing keeps its end's name."""
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # a loop of links
        raise UsageError(f"the output {path} can't be followed: {error}") from error


@contextmanager
def staged(targets: Sequence[Path]) -> Iterator[tuple[Path, ...]]:
    """Give a temporary path beside each target; on a clean exit they become the targets, else they vanish.

    The temporaries have hidden names, the suffix of their target, and do not exist yet. All targets appear or none:
    when one can't be renamed, those before it are put back as they were. That includes Ctrl-C and SystemExit.

    Raises:
        ExportError: a temporary could not be renamed.
    """
    finals = tuple(_real(target) for target in targets)
    temporaries = tuple(_hidden(final) for final in finals)
    try:
        yield temporaries
        try:
            _rename_all(temporaries, finals)
            _written.update(dict.fromkeys(targets))
        except OSError as error:
            raise write_error(error, Path(error.filename2 or error.filename or finals[0])) from error
    finally:
        for temporary in temporaries:
            _remove(temporary)


def _rename_all(temporaries: Sequence[Path], finals: Sequence[Path]) -> None:
    with _alone_in({final.parent for final in finals} if len(finals) > 1 else ()):
        _rename_together(temporaries, finals)


@contextmanager
def _alone_in(folders: Collection[Path]) -> Iterator[None]:
    """Keep other runs of peel from renaming in these folders, so that no file of theirs ends beside one of ours.

    Where the system or the file system knows no locks, nothing is kept from anybody.
    """
    with ExitStack() as opened:
        for folder in sorted(folders):  # in one order, or two runs would wait for each other
            with suppress(ImportError, OSError):
                import fcntl  # not on Windows

                descriptor = os.open(folder, os.O_RDONLY)
                opened.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _rename_together(temporaries: Sequence[Path], finals: Sequence[Path]) -> None:
    backups: dict[Path, Path] = {}
    done: list[Path] = []
    try:
        for temporary, final in zip(temporaries, finals, strict=True):
            if final.exists():
                shutil.copymode(final, temporary)
                if len(finals) > 1:  # one rename is atomic by itself
                    backups[final] = _hidden(final)
                    _keep(final, backups[final])
        for temporary, final in zip(temporaries, finals, strict=True):
            done.append(final)
            temporary.replace(final)
    except BaseException:
        for temporary, final in zip(temporaries, finals, strict=True):
            if final in done and not temporary.exists():  # it was renamed
                if final in backups:
                    backups[final].replace(final)
                else:
                    _remove(final)
        raise
    finally:
        for backup in backups.values():
            _remove(backup)


def _keep(path: Path, backup: Path) -> None:
    """A second name for the same file, or a copy where the file system has no hard links."""
    try:
        os.link(path, backup)
    except OSError:
        shutil.copy2(path, backup)


def _hidden(final: Path) -> Path:
    return final.with_name(f".peel-{secrets.token_hex(6)}{final.suffix}")


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, *pieces: bytes | memoryview) -> None:
    """Write a staged file down to the disk.

    Args:
        path: of the file.
        pieces: its content, one after the other.

    Raises:
        ExportError: the disk is full, or the file can't be written.
    """
    try:
        with path.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())  # network file systems tell only now that there is no room
    except OSError as error:
        raise write_error(error, path, sum(map(len, pieces))) from error


def overwrite(path: Path, offset: int, piece: bytes) -> None:
    """Change a part of a staged file and bring all of it down to the disk. Raises as `write_bytes`."""
    try:
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(error, path, path.stat().st_size) from error


def write_text_atomically(path: Path, text: str) -> None:
    """Write a text file as UTF-8; the old content, if any, stays until the new one is complete.

    Raises:
        ExportError: the disk is full, or the file can't be written.
    """
    with staged([path]) as (temporary,):
        write_bytes(temporary, text.encode())


def write_error(error: OSError, path: Path, size: int | None = None) -> PeelError:
    """What a failed write means to the user, in one line."""
    if error.errno in _FULL:
        needed = f" ({units.file_size(size)} are needed)" if size else ""
        return ExportError(
            f"the disk is full: no room in {path.parent}{needed}, nothing was written",
            hint="free some space, or choose another folder with --out",
        )
    if error.errno == errno.EFBIG:
        return ExportError(
            f"a file of {units.file_size(size or 0)} is larger than allowed in {path.parent}, nothing was written",
            hint="see `ulimit -f`, or choose another folder with --out",
        )
    hint = "choose a folder that you may write to with --out" if error.errno in _FORBIDDEN else ""
    return ExportError(f"can't write in {path.parent}: {_reason(error)}, nothing was written", hint=hint)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
