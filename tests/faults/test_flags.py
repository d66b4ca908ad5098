"""Flags and settings with values that nobody would give, for every command."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from peelcli.cli.main import app
from tests.faults import mutate
from tests.faults.goods import LESSON, SHAPE, take

pytestmark = pytest.mark.faults

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
FILES = ("model.pt", "model.onnx", "plan.json", "run.json", "net.py", "slim.pt", "x.npy", "xy.pt", "photos", "state.pt")
VALUES = (
    *(
        "",
        " ",
        "-1",
        "0",
        "0.5",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "9" * 400,
        "1" * 5000,
        "None",
        "\x1b[31mred",
        "é",
        "\ud800",
    ),
    *(
        "../..",
        "/dev/null",
        "/proc/self/mem",
        "a" * 5000,
        "net.py",
        "net.py:",
        ":make",
        "net.py:os.system",
        "\n",
        "%s%n",
    ),
    *("-", "--", "1,2,3", "1x1", "1,1,8,8", "x=1,1,8,8", "1,1,8,8:int64", "{}", "[]", "50%", "1G", "model.pt", "x.npy"),
)
PER_FLAG = 3
BASE: dict[str, tuple[str, ...]] = {
    "prune": ("model.pt", "--flops", "50%", "--input", SHAPE, "--out", "new.safetensors"),
    "plan": ("model.pt", "--flops", "50%", "--input", SHAPE, "--out", "new.json"),
    "apply": ("model.pt", "plan.json", "--out", "new.safetensors"),
    "inspect": ("model.pt", "--input", SHAPE),
    "report": ("model.onnx", "--out", "new.html"),
    "bench": ("model.onnx", "--seconds", "0.1"),
    "finetune": ("slim.pt", *LESSON, "--out", "new.pt"),
    "sweep": ("model.pt", "--flops", "60%", "--input", SHAPE, "--out", "new"),
}
NEW = ("new.safetensors", "new.plan.json", "new.json", "new.html", "new.pt", "new", "new.finetune", "tuned.finetune")


def _flags() -> list[tuple[str, str, int]]:
    return [
        (command, option.opts[0], number)
        for command, found in sorted(COMMANDS.items())
        for option in found.params
        if option.opts[0].startswith("--") and not option.is_flag
        for number in range(PER_FLAG)
    ]


def _name(value: Any) -> str:
    return str(value).replace(" ", "_")


@pytest.mark.parametrize(("command", "flag", "number"), _flags(), ids=_name)
def test_values_of_flags(command, flag, number, goods, tmp_path, behaves):
    """Each flag with odd values, behind a command that works; writing where the value says is its right."""
    take(FILES, goods, tmp_path)
    value = mutate.chance(command, flag, number).choice(VALUES)
    behaves([command, *BASE[command], flag, value], (*NEW, value) if flag in ("--out", "--checkpoints") else NEW)


ARGUMENTS = {
    "nothing": [],
    "empty": [""],
    "folder": ["."],
    "itself twice": ["model.onnx", "model.onnx"],
    "device": ["/dev/null"],
    "endless device": ["/dev/zero"],
    "memory": ["/proc/self/mem"],
    "long": ["a" * 5000],
    "many folders": ["a/" * 2500 + "b"],
    "no text": ["\udcff\udcfe"],
    "escapes": ["\x1b[2J\x1b]0;title\x07.pt"],
    "newline": ["a\nb.pt"],
    "nul name": ["torchvision:"],
    "module": ["os:system"],
    "dunder": ["net.py:__import__"],
    "missing": ["net.py:nothing_there"],
    "import": ["json.decoder:JSONDecoder"],
    "url": ["https://example.invalid/model.pt"],
    "pipe": ["|touch exploded"],
    "shell": ["$(touch exploded).pt"],
    "plan": ["plan.json"],
    "record": ["run.json"],
    "array": ["x.npy"],
    "folder of images": ["photos"],
    "source": ["net.py"],
    "weights": ["state.pt"],
}
PLACES = [(command, case) for command in sorted(BASE) for case in ARGUMENTS]


@pytest.mark.parametrize(("command", "case"), PLACES, ids=_name)
def test_arguments(command, case, goods, tmp_path, behaves):
    take(FILES, goods, tmp_path)
    given = ARGUMENTS[case]
    rest = BASE[command][2 if command == "apply" and len(given) > 1 else 1 :]
    behaves([command, *given, *rest], NEW)


SETTINGS = (
    *(
        "flops",
        "params",
        "latency",
        "threads",
        "score",
        "allocate",
        "align",
        "min-keep",
        "ignore",
        "pool",
        "tau",
        "seed",
    ),
    *(
        "tracer",
        "input",
        "inputs",
        "weights",
        "factory",
        "code",
        "trust",
        "data",
        "samples",
        "image-size",
        "mean",
        "std",
    ),
    *(
        "metric",
        "repair",
        "device",
        "finetune",
        "rounds",
        "epochs",
        "batch",
        "rate",
        "checkpoints",
        "report",
        "no_such",
    ),
)
ODD_SETTINGS = [(key, number) for key in SETTINGS for number in range(2)]


@pytest.mark.parametrize(("key", "number"), ODD_SETTINGS, ids=_name)
def test_settings_files(key, number, goods, tmp_path, behaves):
    take(FILES, goods, tmp_path)
    value = mutate.chance(key, number).choice(mutate.TOML_ODD)
    budget = "" if key == "flops" else 'flops = "60%"\n'
    (tmp_path / "peel.toml").write_text(f"{budget}{key} = {value}\n", "utf-8")
    behaves(["plan", "model.pt", "--out", "new.json"], NEW)


BOUNDS = ("max-flops", "max-params", "max-size", "max-latency", "min-agreement", "max-drop", "against", "max-regress")


@pytest.mark.parametrize(("key", "number"), [(key, number) for key in BOUNDS for number in range(4)], ids=_name)
def test_bounds_in_settings_files(key, number, goods, tmp_path, behaves):
    take(FILES, goods, tmp_path)
    value = mutate.chance(key, number).choice(mutate.TOML_ODD)
    (tmp_path / "pyproject.toml").write_text(f"[tool.peel.report]\n{key} = {value}\n", "utf-8")
    behaves(["report", "model.onnx", "--out", "new.html"], NEW)


TOML_TEXTS = {
    "deep": "a = " + "[" * 100_000,
    "deep tables": "[" + "a." * 50_000 + "b]\n",
    "tool is text": 'tool = "peel"\n',
    "peel is text": 'tool.peel = "50%"\n',
    "tool is a list": "[[tool]]\npeel = 1\n",
    "twice": 'flops = "50%"\nflops = "60%"\n',
    "both spellings": "min-keep = 0.5\nmin_keep = 0.2\nflops = '50%'\n",
    "mark": '\ufefftool.peel.flops = "50%"\n',
    "long number": "[tool.peel]\nseed = " + "9" * 10_000,
    "long key": "[tool.peel]\n" + "k" * 10_000 + " = 1\n",
    "escape in key": '[tool.peel]\n"\\u001b[31m" = 1\n',
    "empty key": '[tool.peel]\n"" = 1\n',
    "nothing": "",
}


@pytest.mark.parametrize("case", TOML_TEXTS, ids=_name)
@pytest.mark.parametrize("file", ["peel.toml", "pyproject.toml"])
def test_texts_of_settings_files(file, case, goods, tmp_path, behaves):
    take(FILES, goods, tmp_path)
    (tmp_path / file).write_text(TOML_TEXTS[case], "utf-8")
    behaves(["plan", "model.pt", "--input", SHAPE, "--flops", "50%", "--out", "new.json"], NEW)


SHAPES = (
    *("1", "0", "1,1", "1,1,8", "1,1,8,8,8", "1,1,0,8", "1,1,-8,8", "1,1,8,nan", "1,2,8,8", "1,1,1,1", "2,1,8,8"),
    *("1,1,99999999,99999999", "1,1,9223372036854775807,8", "1,1,1e9,8", "1,1,8,8:int64", "1,1,8,8:bool", "1,1,8,8:<0"),
    *("1,1,8,8:complex64", "1,1,8,8:nothing", "x=1,1,8,8", "input=1,1,8,8", "=1,1,8,8", "1;1;8;8", ",,,", "x" * 10_000),
    *(
        "[1,1,8,8]",
        "None",
        "True",
        "[1,1,8,8",
        "[[[[",
        "x=[1x1,{a=2x2}]",
        "input=" + "[" * 5000,
        "1,1,8,8:int64:<" + "9" * 50,
    ),
)


@pytest.mark.parametrize("file", ["model.pt", "model.onnx", "net.py:make"])
@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_shapes(file, shape, goods, tmp_path, behaves):
    take(FILES, goods, tmp_path)
    behaves(["inspect", file, "--input", SHAPES[shape]])
