"""Paths of every kind, folders that can't be written, disks that are full, little memory."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.goods import LESSON, SHAPE, take
from tests.faults.judge import faults, seen

pytestmark = pytest.mark.faults

CUT = ("--flops", "50%", "--input", SHAPE)
NAMES = {
    "spaces": "my models",
    "unicode": "größe 模型 🦊",
    "combining": "e\u0301\u0302",
    "right to left": "\u05d0\u05d1",
    "quotes": 'it\'s "here"',
    "dollar": "$(touch exploded)",
    "glob": "[a-z]*?",
    "percent": "%s%n%00",
    "colon": "a:b",
    "equals": "a=b,c",
    "leading dash": "-rf",
    "dots": "...",
    "tilde": "~root",
    "markup": "[bold]x[red]",
    "long": "n" * 200,
    "no text": os.fsdecode(b"\xff\xfe"),
}


@pytest.mark.parametrize("case", NAMES, ids=lambda case: case.replace(" ", "_"))
def test_folders_of_any_name(case, goods, tmp_path, behaves):
    """Every file that a command reads or writes lies in it."""
    folder = Path(NAMES[case])
    (tmp_path / folder).mkdir()
    take(("model.pt", "x.npy", "net.py"), goods, tmp_path / folder)
    inside = f"./{folder}"
    outputs = tuple(str(folder / name) for name in ("new.json", "new.safetensors", "new.plan.json"))
    ran = behaves(
        ["plan", f"{inside}/model.pt", *CUT, "--data", f"{inside}/x.npy", "--out", f"{inside}/new.json"], outputs
    )
    assert ran.code == 0, ran
    assert (tmp_path / folder / "new.json").exists()
    ran = behaves(["apply", f"{inside}/model.pt", f"{inside}/new.json", "--out", f"{inside}/new.safetensors"], outputs)
    assert ran.code == (2 if case == "no text" else 0), ran  # safetensors takes UTF-8 only


def test_paths_as_long_as_the_system_takes(goods, tmp_path, behaves):
    deep = tmp_path
    while len(str(deep)) < 3500:
        deep = deep / ("d" * 200)
    deep.mkdir(parents=True)
    take(("model.pt",), goods, deep)
    name = str(deep.relative_to(tmp_path))
    ran = behaves(["plan", f"{name}/model.pt", *CUT, "--out", f"{name}/new.json"], (f"{name}/new.json",))
    assert ran.code == 0, ran


@pytest.mark.parametrize("length", [250, 255, 256])
def test_names_as_long_as_the_system_takes(length, goods, tmp_path, behaves):
    """The temporary file has a name of its own, which is not longer."""
    take(("model.pt",), goods, tmp_path)
    name = "n" * (length - 5) + ".json"
    assert behaves(["plan", "model.pt", *CUT, "--out", name], (name,)).code == (0 if length <= 255 else 2)


def test_links(goods, tmp_path, behaves):
    """Read through, written through; circles and ends that are missing are told."""
    take(("model.pt", "plan.json"), goods, tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / "in.pt").symlink_to("model.pt")
    (tmp_path / "out.json").symlink_to("store/real.json")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "dangling").symlink_to("nowhere/at/all")
    assert behaves(["plan", "in.pt", *CUT, "--out", "out.json"], ("store/real.json",)).code == 0
    assert (tmp_path / "out.json").is_symlink()
    for bad in ("circle", "dangling"):
        assert behaves(["inspect", bad]).code == 2
        assert behaves(["apply", "model.pt", bad, "--out", "new.pt"]).code == 2
        assert behaves(["plan", "model.pt", *CUT, "--out", f"{bad}/new.json"]).code == 2


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_what_is_no_file(kind, goods, tmp_path, behaves):
    take(("model.pt",), goods, tmp_path)
    if kind == "fifo":
        os.mkfifo(tmp_path / "odd.pt")
    else:
        short = os.path.relpath(tmp_path / "odd.pt")
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(short if len(short) < 100 else "odd.pt")
    for argv in (["inspect", "odd.pt"], ["report", "odd.pt"], ["plan", "model.pt", *CUT, "--data", "odd.pt"]):
        assert behaves(argv, seconds=20).code == 2


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own, which may be made full or read-only."""
    mounted = []

    def mount(options):
        folder = tmp_path / "disk"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


WRITERS = {
    "plan": (("plan", "model.pt", *CUT, "--out", "disk/new.json"), ("model.pt",)),
    "prune": (("prune", "model.pt", *CUT, "--out", "disk/new.onnx", "--out", "disk/new.pt2"), ("model.pt",)),
    "prune to pt": (("prune", "model.pt", *CUT, "--out", "disk/new.pt"), ("model.pt",)),
    "prune to safetensors": (("prune", "model.pt", *CUT, "--out", "disk/new.safetensors"), ("model.pt",)),
    "prune to py": (("prune", "model.pt", *CUT, "--out", "disk/new.py"), ("model.pt",)),
    "plot": (("prune", "model.pt", *CUT, "--plot", "disk/new.svg"), ("model.pt",)),
    "apply": (("apply", "model.pt", "plan.json", "--out", "disk/new.safetensors"), ("model.pt", "plan.json")),
    "report": (("report", "run.json", "--out", "disk/new.html", "--out", "disk/new.xml"), ("run.json",)),
    "finetune": (("finetune", "slim.pt", *LESSON, "--out", "disk/new.pt"), ("slim.pt", "model.pt", "x.npy")),
    "sweep": (("sweep", "model.pt", "--flops", "60%", "--input", SHAPE, "--out", "disk/new"), ("model.pt",)),
}


@pytest.mark.parametrize("state", ["full", "nearly full", "read-only", "no inodes"])
@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.replace(" ", "_"))
def test_disks(writer, state, goods, tmp_path, disk, station):
    """A disk that takes no more, or nothing, or half of a file."""
    argv, needs = WRITERS[writer]
    take(needs, goods, tmp_path)
    folder = disk("size=64k" + (",nr_inodes=1" if state == "no inodes" else ""))
    if state in ("full", "nearly full"):
        fill(folder / "ballast", 0 if state == "full" else 4096)
    if state == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
    before = seen(tmp_path)
    ran = station.run(argv, tmp_path)
    fitted = [name for name in argv if name.startswith("disk/new.") and ran.code == 0]
    found = faults(ran, tmp_path, before, ("disk/new.finetune", "disk/new", *fitted))
    assert not found, f"{found}\n{ran}"
    if state != "nearly full" or ran.code:  # a small file may fit
        assert ran.code == 2
        assert "hint: " in ran.stderr


def fill(path: Path, left: int) -> None:
    """Take all room but some bytes."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(file, bytes(4096))
    os.ftruncate(file, os.fstat(file).st_size - left)
    os.close(file)


@pytest.mark.parametrize("argv", [["inspect", "model.pt"], ["report", "run.json"], ["--help"], ["bench", "model.onnx"]])
def test_a_result_that_can_not_be_printed(argv, goods, tmp_path, peel_environment):
    """Stdout on a full disk."""
    take(("model.pt", "run.json", "model.onnx"), goods, tmp_path)
    rest = {"bench": ["--seconds", "0.1"], "inspect": ["--input", SHAPE]}.get(argv[0], [])
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "peelcli", *argv, *rest],
            cwd=tmp_path,
            env=peel_environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


MIB = 2**20
HUNGRY = {
    "plan": ("plan", "model.pt", *CUT, "--data", "x.npy", "--out", "new.json"),
    "prune": ("prune", "model.pt", *CUT, "--out", "new.onnx"),
    "inspect": ("inspect", "model.onnx"),
    "report": ("report", "run.json", "--out", "new.html"),
    "bench": ("bench", "model.onnx", "--seconds", "0.1"),
    "finetune": ("finetune", "slim.pt", *LESSON, "--out", "new.pt"),
    "large input": ("inspect", "net.py:make", "--input", "64,1,1000,1000"),
    "large data": (
        "plan",
        "net.py:make",
        "--flops",
        "50%",
        "--input",
        SHAPE,
        "--data",
        "net.py:endless",
        "--out",
        "new.json",
    ),
}
ENDLESS = """
def endless():
    while True:
        yield torch.zeros(1, 1, 8, 8), torch.zeros(2_000_000)
"""


@pytest.mark.parametrize("room", [1, 30, 70, 120, 250])
@pytest.mark.parametrize("case", HUNGRY, ids=lambda case: case.replace(" ", "_"))
def test_little_memory(case, room, goods, tmp_path, behaves):
    """So many MiB of addresses above what the imports took: they are enough, or one clear line says otherwise."""
    take(("model.pt", "slim.pt", "model.onnx", "run.json", "x.npy", "net.py"), goods, tmp_path)
    (tmp_path / "net.py").write_text((goods / "net.py").read_text("utf-8") + ENDLESS, "utf-8")
    outputs = ("new.json", "new.onnx", "new.html", "new.pt", "new.finetune")
    ran = behaves(HUNGRY[case], outputs, limits={"memory": room * MIB})
    if case.startswith("large") and room < 250:
        assert ran.code == 2
        assert "memory" in ran.stderr


def test_files_may_not_be_large(goods, tmp_path, behaves):
    take(("model.pt",), goods, tmp_path)
    for name in ("new.onnx", "new.pt", "new.pt2", "new.safetensors", "new.py"):
        ran = behaves(["prune", "model.pt", *CUT, "--out", name], limits={"file": 512})
        assert ran.code == 2, ran
