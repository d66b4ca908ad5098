"""Files made to do harm: nothing in them runs, nothing outside of their folder is read or written."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from tests.faults.goods import SHAPE, TRAINING, take

pytestmark = pytest.mark.faults

MARK = "exploded"


class Call:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.made = (function, arguments)

    def __reduce__(self):
        return self.made


def _touch():
    return Call(os.system, f"touch {MARK}")


def _hand(*lines: str) -> bytes:
    return "\n".join(lines).encode()


PICKLES: dict[str, Callable[[], bytes]] = {
    **{f"system {protocol}": lambda p=protocol: pickle.dumps(_touch(), p) for protocol in range(6)},
    "eval": lambda: pickle.dumps(Call(eval, f"open('{MARK}', 'w')")),
    "exec": lambda: pickle.dumps(Call(exec, f"open('{MARK}', 'w').close()")),
    "open": lambda: pickle.dumps(Call(open, MARK, "w")),
    "import": lambda: pickle.dumps(Call(__import__, "net")),
    "nested": lambda: pickle.dumps({"model": [Call(getattr, Call(__import__, "os"), "system")]}),
    "in a tensor's place": lambda: pickle.dumps({"weight": Call(torch.load, "x.pt")}),
    "write through numpy": lambda: pickle.dumps(Call(np.save, MARK, [1])),
    "write through torch": lambda: pickle.dumps(Call(torch.save, [1], MARK)),
    "from memo": lambda: _hand("cos", "system", "p0", "0g0", f"(S'touch {MARK}'", "tR."),
    "inst": lambda: _hand(f"(S'touch {MARK}'", "ios", "system", "."),
    "obj": lambda: b"(cos\nsystem\n" + f"S'touch {MARK}'\n".encode() + b"o.",
    "stack global": lambda: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([14]) + b"touch exploded\x85R.",
    "dotted name": lambda: b"\x80\x04\x8c\x05torch\x8c\x0dserialization\x93\x8c\x02os\x86R.",
    "extension registry": lambda: b"\x80\x02\x82\x01)R.",
    "build": lambda: b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81}X\x08\x00\x00\x00__dict__cos\nsystem\nsb.",
    "endless memo": lambda: b"\x80\x02" + b"]q\x00" + b"h\x00a" * 100_000 + b".",
    "bomb of lists": lambda: b"\x80\x02]q\x00" + b"".join(b"]" + b"h%c" % n * 9 + b"eq%c" % (n + 1) for n in range(99)),
    "long integer": lambda: b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1" * 100 + b".",
    "long text": lambda: b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"a.",
    "deep": lambda: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
}


def _in_zip(program: bytes, record: str = "data.pkl", folder: str = "model") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{folder}/{record}", program)
        archive.writestr(f"{folder}/version", "3\n")
        archive.writestr(f"{folder}/byteorder", "little")
    return buffer.getvalue()


READERS = {
    "model": ("bad.pt", ("inspect", "bad.pt")),
    "weights": ("bad.pt", ("inspect", "bad.pt", "--factory", "net.py:make")),
    "named weights": ("bad.pt", ("inspect", "net.py:make", "--weights", "bad.pt", "--input", SHAPE)),
    "data": (
        "bad.pt",
        ("plan", "model.pt", "--flops", "50%", "--data", "bad.pt", "--input", SHAPE, "--out", "new.json"),
    ),
    "checkpoint": ("stopped/checkpoint.pt", ("finetune", *TRAINING, "--resume")),
    "plan": ("plan.json", ("apply", "model.pt", "plan.json", "--out", "new.pt")),
    "ONNX": ("bad.onnx", ("report", "bad.onnx")),
    "npy": ("bad.npy", ("plan", "model.pt", "--flops", "50%", "--data", "bad.npy", "--input", SHAPE)),
    "teacher": ("bad.pt", ("finetune", "slim.pt", "--teacher", "bad.pt", "--data", "x.npy", "--steps", "2")),
}
NEEDS = ("model.pt", "slim.pt", "net.py", "x.npy", "stopped")
BOMBS = [(reader, name, zipped) for reader in READERS for name in PICKLES for zipped in (False, True)]


@pytest.mark.parametrize(("reader", "name", "zipped"), BOMBS, ids=lambda part: str(part).replace(" ", "_"))
def test_no_pickle_runs(reader, name, zipped, goods, tmp_path, behaves):
    file, argv = READERS[reader]
    take(NEEDS, goods, tmp_path)
    program = PICKLES[name]()
    (tmp_path / file).write_bytes(_in_zip(program) if zipped else program)
    ran = behaves(argv)
    assert ran.code == 2
    assert "hint: " in ran.stderr
    assert not (tmp_path / MARK).exists()


def _objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([_touch()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _many(suffix: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"x{suffix}", _objects())
    return buffer.getvalue()


@pytest.mark.parametrize(("file", "content"), [("bad.npy", _objects), ("bad.npz", lambda: _many(".npy"))])
def test_no_array_of_objects_is_opened(file, content, goods, tmp_path, behaves):
    take(("model.pt",), goods, tmp_path)
    (tmp_path / file).write_bytes(content())
    ran = behaves(["plan", "model.pt", "--flops", "50%", "--data", file, "--input", SHAPE])
    assert ran.code == 2
    assert not (tmp_path / MARK).exists()


def _deflated(name: str, size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open(name, "w", force_zip64=True) as record:
            for _ in range(size // 2**20):
                record.write(bytes(2**20))
        archive.writestr(f"{name.partition('/')[0]}/version", "3\n")
    return buffer.getvalue()


def _npy_header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def _safetensors(header: object, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(64)


def _entry(shape: list[int], start: int = 0, end: int = 64, dtype: str = "F32") -> dict[str, object]:
    return {"0.weight": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


GIB = 2**30
SIZES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "zip bomb as module": ("bad.pt", lambda: _deflated("model/data.pkl", GIB)),
    "zip bomb as script": ("bad.pt", lambda: _deflated("model/constants.pkl", GIB)),
    "zip bomb as program": ("bad.pt2", lambda: _deflated("model/models/model.json", GIB)),
    "zip bomb as data": ("bad.npz", lambda: _deflated("x.npy", GIB)),
    "names upward": ("bad.pt", lambda: _in_zip(b"\x80\x02}.", "../../data.pkl")),
    "absolute names": ("bad.pt", lambda: _in_zip(b"\x80\x02}.", "data.pkl", "/tmp")),
    "array of 10^18": ("bad.npy", lambda: _npy_header("(1000000000, 1000000000)")),
    "array that overflows": ("bad.npy", lambda: _npy_header("(4294967296, 4294967296, 2)")),
    "array of negative size": ("bad.npy", lambda: _npy_header("(-1, 8)")),
    "array of code": ("bad.npy", lambda: _npy_header("__import__('os').system('touch exploded')")),
    "array of objects": ("bad.npy", lambda: _npy_header("(2, 8)", "'|O'")),
    "array of deep types": ("bad.npy", lambda: _npy_header("(2,)", "[" * 3000 + "]" * 3000)),
    "header of 2^63": ("bad.safetensors", lambda: _safetensors({}, 2**63)),
    "header of 2^64 - 1": ("bad.safetensors", lambda: _safetensors({}, 2**64 - 1)),
    "header of 99 MB": ("bad.safetensors", lambda: _safetensors({}, 99_000_000)),
    "tensor of 10^18": ("bad.safetensors", lambda: _safetensors(_entry([10**9, 10**9]))),
    "tensor that overflows": ("bad.safetensors", lambda: _safetensors(_entry([2**62, 4]))),
    "tensor behind the end": ("bad.safetensors", lambda: _safetensors(_entry([16], 10**9, 10**9 + 64))),
    "tensor that ends before": ("bad.safetensors", lambda: _safetensors(_entry([16], 64, 0))),
    "tensor of no type": ("bad.safetensors", lambda: _safetensors(_entry([16], dtype="os.system"))),
    "deep header": ("bad.safetensors", lambda: _safetensors(b'{"a":' * 100_000 + b"1" + b"}" * 100_000)),
    "header twice": ("bad.safetensors", lambda: _safetensors(b'{"a":{},"a":{}}')),
}


@pytest.mark.parametrize("case", SIZES, ids=lambda case: case.replace(" ", "_"))
def test_sizes_are_bounded_before_memory_is_taken(case, goods, tmp_path, behaves):
    """With a quarter of a gigabyte on top of what the imports took."""
    take(("model.pt", "net.py"), goods, tmp_path)
    file, content = SIZES[case]
    (tmp_path / file).write_bytes(content())
    data = ["plan", "model.pt", "--flops", "50%", "--data", file, "--input", SHAPE, "--out", "new.json"]
    weights = ["inspect", "net.py:make", "--weights", file, "--input", SHAPE]
    commands = {".npy": [data], ".npz": [data], ".safetensors": [data, weights], ".pt": [["inspect", file], weights]}
    for argv in commands.get(Path(file).suffix, [["inspect", file]]):
        ran = behaves(argv, limits={"memory": 256 * 2**20}, seconds=30)
        assert ran.code == 2, ran
        assert not (tmp_path / MARK).exists()


def _graph(weight: TensorProto) -> bytes:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    put = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([node], "net", [given], [put], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()


def _outside(location: str, offset: str | None = None, length: str | None = None) -> bytes:
    weight = TensorProto(name="w", dims=[4, 4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            weight.external_data.add(key=key, value=value)
    return _graph(weight)


def _large(*dims: int) -> bytes:
    weight = numpy_helper.from_array(np.zeros((4, 4), np.float32), "w")
    del weight.dims[:]
    weight.dims.extend(dims)
    return _graph(weight)


ONNX: dict[str, Callable[[], bytes]] = {
    "absolute": lambda: _outside("/etc/passwd"),
    "upward": lambda: _outside("../secret.bin"),
    "upward inside": lambda: _outside("inner/../../secret.bin"),
    "windows": lambda: _outside("..\\secret.bin"),
    "drive": lambda: _outside("C:/secret.bin"),
    "link out": lambda: _outside("link.bin"),
    "linked folder": lambda: _outside("linked/secret.bin"),
    "device": lambda: _outside("/dev/zero"),
    "folder": lambda: _outside("."),
    "no location": lambda: _outside(""),
    "nul": lambda: _outside("a\0b"),
    "offset behind": lambda: _outside("own.bin", "1000000"),
    "offset negative": lambda: _outside("own.bin", "-64"),
    "offset of 2^63": lambda: _outside("own.bin", str(2**63)),
    "length of 2^63": lambda: _outside("own.bin", "0", str(2**63)),
    "length of text": lambda: _outside("own.bin", "0", "all"),
    "length of digits": lambda: _outside("own.bin", "0", "9" * 5000),
    "dims of 10^18": lambda: _large(10**9, 10**9),
    "dims that overflow": lambda: _large(2**62, 4),
    "dims negative": lambda: _large(-4, -4),
    "many dims": lambda: _large(*([2] * 5000)),
}


@pytest.mark.parametrize("command", ["inspect", "report", "bench", "prune"])
@pytest.mark.parametrize("case", ONNX, ids=lambda case: case.replace(" ", "_"))
def test_onnx_files_reach_for_nothing_outside(case, command, tmp_path, behaves):
    folder = tmp_path / "model"
    folder.mkdir()
    secret = np.arange(16, dtype=np.float32).tobytes()
    (tmp_path / "secret.bin").write_bytes(secret)
    (folder / "own.bin").write_bytes(secret)
    (folder / "link.bin").symlink_to("../secret.bin")
    (folder / "linked").symlink_to("..")
    (folder / "bad.onnx").write_bytes(ONNX[case]())
    rest = {"prune": ["--flops", "50%", "--out", "new.onnx"], "bench": ["--seconds", "0.1"]}.get(command, [])
    ran = behaves([command, "model/bad.onnx", *rest], limits={"memory": 2**30}, seconds=30)
    assert ran.code == 2, ran


def test_a_model_file_imports_nothing(goods, tmp_path, behaves):
    """Not even a module that lies beside it."""
    take(("model.pt",), goods, tmp_path)
    (tmp_path / "beside.py").write_text(f"open('{MARK}', 'w').close()\nclass Net: pass\n")
    for program in (b"\x80\x02cbeside\nNet\n)\x81.", b"\x80\x02ctorch.beside\nNet\n)\x81.", b"\x80\x02cthis\ns\n."):
        (tmp_path / "bad.pt").write_bytes(_in_zip(program))
        assert behaves(["inspect", "bad.pt"]).code == 2
    assert not (tmp_path / MARK).exists()


NAMES = (
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "::error file=a,line=1::owned",
    "\n::set-output name=a::b",
    "%0A::warning::x",
    "| a | b |\n|---|---|",
    "[click](javascript:alert(1))",
    "\x1b[2J\x1b]0;owned\x07\x1b[31m",
    "\u202eexe.xnno",
    "[red]markup[/red][/nothing]",
    "]]><evil/><![CDATA[",
    "&lt;script&gt;&#x3c;",
    "</pre></style></title><h1>",
    "`code` ``` \n```\n# heading",
    "=cmd|' /C calc'!A0",
    "\ud800\udfff",
)
FORMATS = ("text", "json", "markdown", "html", "junit", "github", "gitlab")


def _renamed(value: object, name: str) -> object:
    """Every text of a record replaced, but the version of the format."""
    if isinstance(value, dict):
        return {key: _renamed(inner, name) for key, inner in value.items()}
    if isinstance(value, list):
        return [_renamed(inner, name) for inner in value]
    return name if isinstance(value, str) else value


@pytest.mark.parametrize("shape", FORMATS)
@pytest.mark.parametrize("number", range(len(NAMES)))
def test_names_stay_names(number, shape, goods, tmp_path, behaves):
    """A record in which every text is an attack, in every format."""
    record = _renamed(json.loads((goods / "run.json").read_text("utf-8")), NAMES[number])
    (tmp_path / "run.json").write_text(json.dumps(record), "utf-8")
    ran = behaves(["report", "run.json", "--output-format", shape, "--layers", "0", "--max-params", "1"])
    assert ran.code == 1, ran
    told = ran.stdout
    assert "\x1b" not in told
    if shape == "html":
        assert "<script>alert" not in told
        assert "<img" not in told
        assert "<h1>" not in told or told.count("<h1>") == 1
        assert "<evil" not in told
    if shape == "github":
        assert all(
            line.startswith(("::error file=", "::warning file=", "::notice file=")) for line in told.splitlines()
        )
        assert "\n::set-output" not in told


@pytest.mark.parametrize("name", ["a\x1b[31m.pt", "a\nb.pt", "<b>.pt", "[red].pt", "\u202e.pt", "::error::.pt", "-rf"])
def test_names_of_files_stay_names(name, goods, tmp_path, behaves):
    (tmp_path / name).write_bytes((goods / "model.pt").read_bytes())
    assert behaves(["inspect", f"./{name}", "--input", SHAPE]).code == 0
    (tmp_path / name).write_bytes(b"\x80\x02cos\nsystem\n.")
    ran = behaves(["inspect", f"./{name}"])
    assert ran.code == 2
    assert len(ran.stderr.splitlines()) == 2


def test_names_of_layers_stay_names(goods, tmp_path, behaves):
    """In ONNX files a layer may be called anything."""
    proto = onnx.load(goods / "model.onnx")
    for number, node in enumerate(proto.graph.node):
        node.name = NAMES[number % (len(NAMES) - 1)]
    onnx.save(proto, tmp_path / "named.onnx")
    for shape in FORMATS:
        ran = behaves(["report", "named.onnx", "--output-format", shape, "--layers", "0"])
        assert ran.code == 0, ran
        assert "\x1b" not in ran.stdout
        assert "<script>alert" not in ran.stdout or shape not in ("html", "junit")
    assert "\x1b" not in behaves(["inspect", "named.onnx"]).stdout
