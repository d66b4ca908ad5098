"""Files of every format, spoiled at random: refused in one line, or read as what they are."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.faults import mutate
from tests.faults.goods import LESSON, SHAPE, TRAINING, take

pytestmark = pytest.mark.faults

CUT = ("--flops", "50%", "--align", "4", "--input", SHAPE)
OWN = CUT[:4]  # for files that bring their input


@dataclass(frozen=True)
class Reads:
    """A command that reads a file.

    Attributes:
        file: that is spoiled.
        argv: the command.
        needs: other files of the goods.
        outputs: what it may write.
    """

    file: str
    argv: tuple[str, ...]
    needs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def _plan(*argv: str) -> tuple[str, ...]:
    return ("plan", *argv, "--out", "new.json")


READS = {
    "pickled module": Reads("model.pt", ("inspect", "model.pt", "--input", SHAPE)),
    "state dict": Reads("state.pt", _plan("state.pt", "--factory", "net.py:make", *CUT), ("net.py",), ("new.json",)),
    "legacy": Reads("legacy.pt", ("inspect", "legacy.pt", "--factory", "net.py:make", "--input", SHAPE), ("net.py",)),
    "weights": Reads(
        "weights.safetensors",
        _plan("net.py:make", "--weights", "weights.safetensors", *CUT),
        ("net.py",),
        ("new.json",),
    ),
    "TorchScript": Reads("script.pt", ("inspect", "script.pt", "--input", SHAPE)),
    "exported": Reads("program.pt2", _plan("program.pt2", *OWN), (), ("new.json",)),
    "ONNX": Reads("model.onnx", ("inspect", "model.onnx")),
    "ONNX report": Reads("model.onnx", ("report", "model.onnx", "--out", "r.html"), (), ("r.html",)),
    "ONNX bench": Reads("model.onnx", ("bench", "model.onnx", "--seconds", "0.1")),
    "ONNX graph outside": Reads("outside.onnx", _plan("outside.onnx", *OWN), ("outside.bin",), ("new.json",)),
    "ONNX data": Reads("outside.bin", ("report", "outside.onnx"), ("outside.onnx",)),
    "slim weights": Reads(
        "slim.safetensors",
        ("finetune", "slim.safetensors", *LESSON, "--out", "tuned.pt"),
        ("slim.plan.json", "model.pt", "x.npy"),
        ("tuned.pt", "tuned.finetune"),
    ),
    "slim plan": Reads(
        "slim.plan.json",
        ("finetune", "slim.safetensors", *LESSON, "--out", "tuned.pt"),
        ("slim.safetensors", "model.pt", "x.npy"),
        ("tuned.pt", "tuned.finetune"),
    ),
    "generated weights": Reads("generated.safetensors", ("inspect", "generated.py:load"), ("generated.py",)),
    "plan": Reads("plan.json", ("apply", "model.pt", "plan.json", "--out", "new.pt"), ("model.pt",), ("new.pt",)),
    "record": Reads("run.json", ("report", "run.json", "--out", "r.md", "--out", "r.xml"), (), ("r.md", "r.xml")),
    "report": Reads("report.json", ("report", "report.json", "--diff", "--out", "r.html"), (), ("r.html",)),
    "settings": Reads("own.toml", _plan("model.pt", "--config", "own.toml"), ("model.pt",), ("new.json",)),
    "npy": Reads("x.npy", _plan("model.pt", "--data", "x.npy", *CUT), ("model.pt",), ("new.json",)),
    "npz": Reads("xy.npz", _plan("model.pt", "--data", "xy.npz", *CUT), ("model.pt",), ("new.json",)),
    "tensors": Reads("xy.pt", _plan("model.pt", "--data", "xy.pt", *CUT), ("model.pt",), ("new.json",)),
    "safetensors data": Reads(
        "xy.safetensors", _plan("model.pt", "--data", "xy.safetensors", *CUT), ("model.pt",), ("new.json",)
    ),
    "image": Reads(
        "photos/cat/0.png", _plan("model.pt", "--data", "photos", *CUT), ("model.pt", "photos"), ("new.json",)
    ),
    "checkpoint": Reads(
        "stopped/checkpoint.pt",
        ("finetune", *TRAINING, "--resume"),
        ("stopped", "slim.pt", "model.pt", "x.npy", "net.py"),
        ("tuned.pt", "stopped"),
    ),
    "log": Reads(
        "stopped/metrics.jsonl",
        ("finetune", *TRAINING, "--resume"),
        ("stopped", "slim.pt", "model.pt", "x.npy", "net.py"),
        ("tuned.pt", "stopped"),
    ),
    "sweep's key": Reads(
        "swept/sweep.key.json",
        ("sweep", "model.pt", "--input", SHAPE, "--flops", "80%,60%", "--out", "swept"),
        ("swept", "model.pt"),
        ("swept",),
    ),
    "sweep's point": Reads(
        "swept/flops-80pct.point.json",
        ("sweep", "model.pt", "--input", SHAPE, "--flops", "80%,60%", "--out", "swept"),
        ("swept", "model.pt"),
        ("swept",),
    ),
}
ZIPS = ("pickled module", "state dict", "TorchScript", "exported", "npz", "tensors", "checkpoint")
TREES = ("slim plan", "plan", "record", "report", "sweep's point", "sweep's key")
PER_ZIP, PER_TREE = 12, 15


def _ids(pairs):
    return ["-".join(map(str, pair)).replace(" ", "_") for pair in pairs]


@pytest.fixture
def spoiled(goods, tmp_path, behaves):
    """Run the command of one kind on its file, changed by a function of the file's bytes."""

    def run(kind, change):
        reads = READS[kind]
        take((reads.file, *reads.needs), goods, tmp_path)
        path = tmp_path / reads.file
        path.write_bytes(change(path.read_bytes()))
        return behaves(reads.argv, reads.outputs)

    return run


BYTES = [(kind, spoil) for kind in READS for spoil in mutate.BYTES]
ENTRIES = [(kind, number) for kind in ZIPS for number in range(PER_ZIP)]
VALUES = [(kind, number) for kind in TREES for number in range(PER_TREE)]
TEXTS = [(kind, text) for kind in TREES for text in mutate.JSON]


@pytest.mark.parametrize(("kind", "spoil"), BYTES, ids=_ids(BYTES))
def test_bytes(kind, spoil, spoiled):
    spoiled(kind, lambda data: mutate.BYTES[spoil](data, mutate.chance(kind, spoil)))


@pytest.mark.parametrize(("kind", "number"), ENTRIES, ids=_ids(ENTRIES))
def test_entries_of_archives(kind, number, spoiled):
    spoiled(kind, lambda data: mutate.archive(data, mutate.chance(kind, number)))


@pytest.mark.parametrize(("kind", "number"), VALUES, ids=_ids(VALUES))
def test_values_of_json(kind, number, spoiled):
    spoiled(kind, lambda data: mutate.json_value(data, mutate.chance(kind, number)))


@pytest.mark.parametrize(("kind", "text"), TEXTS, ids=_ids(TEXTS))
def test_what_is_hardly_json(kind, text, spoiled):
    spoiled(kind, mutate.JSON[text])
