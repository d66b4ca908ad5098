"""What becomes of a training whose result can't be written."""

from __future__ import annotations

import pytest

import peelcli as peel
from peelcli.errors import ExportError, PeelError
from peelcli.export import targets
from tests.support.lessons import images, network, pruned


def tuned(model, slim, **settings):
    return peel.finetune(slim, images(1), teacher=model, data=images(60), steps=6, batch=16, **settings)


def test_a_failed_export_says_where_the_training_is_and_how_to_save_it(tmp_path, monkeypatch):
    model = network()
    slim = pruned(model).model
    write = targets.write

    def fails(*arguments):
        raise ExportError("the model can't be exported to ONNX: no such op", hint="write .pt2")

    monkeypatch.setattr(targets, "write", fails)
    with pytest.raises(PeelError, match=r"no such op; the training is done and kept in .*o\.finetune") as caught:
        tuned(model, slim, out=tmp_path / "o.onnx")
    folder = tmp_path / "o.finetune"
    assert f"--checkpoints '{folder}' --resume --out OTHER.pt; write .pt2" in caught.value.hint
    monkeypatch.setattr(targets, "write", write)
    saved = tuned(model, slim, checkpoints=folder, resume=True, out=tmp_path / "o2.pt")
    assert "resumed after step 6" in saved.run.tunings[0].notes
    assert (tmp_path / "o2.pt").exists()
    assert not (folder / "checkpoint.pt").exists()


def test_without_a_folder_nothing_is_promised(monkeypatch):
    model = network()

    def fails(*arguments):
        raise ExportError("no", hint="")

    monkeypatch.setattr("peelcli.pipeline._finish", fails)
    with pytest.raises(PeelError, match=r"^no$"):
        tuned(model, pruned(model).model)
