"""Real architectures in small, one or two for each way in which pruning used to fail, by the zoo's own judgement.

Each has the least share of its multiply-adds that must be reachable: a tracer that locks more than it used to fails
here, not only one that is wrong.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
import zoo_judge
import zoo_models
import zoo_peel
import zoo_plain
import zoo_samples
from torch import nn
from zoo_models import hf, timm_names
from zoo_models.entry import Entry, inputs_of, liven

TEXT: dict[str, Any] = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 32,
}  # fmt: skip
PICTURE: dict[str, Any] = {
    "image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
    "intermediate_size": 64,
}  # fmt: skip
GPT2 = {"vocab_size": 60, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 32, "use_cache": False,
        "bos_token_id": 1, "eos_token_id": 2}  # fmt: skip
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "use_cache": False}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
SEGFORMER = {"image_size": 32, "depths": [1, 1], "hidden_sizes": [16, 32], "num_attention_heads": [1, 2],
             "num_encoder_blocks": 2, "sr_ratios": [2, 1], "patch_sizes": [7, 3], "strides": [4, 2],
             "mlp_ratios": [2, 2], "decoder_hidden_size": 32}  # fmt: skip
SPEECH = {**hf.AUDIO, "hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64, "conv_dim": (16,) * 7,
          "num_conv_pos_embedding_groups": 2}  # fmt: skip


def timm(name: str) -> Entry:
    return Entry("cnn", partial(timm_names.built, name))


SMALL: dict[str, tuple[Entry, float]] = {
    "heads regrouped (BERT)": (hf.entry("Bert", "Model", TEXT), 0.75),
    "static heads (ViT)": (hf.entry("ViT", "ForImageClassification", PICTURE), 0.5),
    "Conv1D (GPT-2)": (hf.entry("GPT2", "LMHeadModel", GPT2), 0.9),
    "windows (Swin)": (hf.entry("Swin", "ForImageClassification", SWIN), 0.5),
    "silently wrong (SegFormer)": (hf.entry("Segformer", "ForSemanticSegmentation", SEGFORMER, ("1,3,32,32",)), 0.5),
    "weight_norm (wav2vec 2)": (hf.entry("Wav2Vec2", "Model", SPEECH, ("1,2000",)), 0.5),
    "channels last (MTCNN)": (zoo_models.ZOO["own/face_rnet"], 0.1),
    "size in an attribute (CREPE)": (zoo_models.ZOO["own/crepe_tiny"], 0.1),
    "chunk and cat (C2f)": (zoo_models.ZOO["own/yolo_c2f"], 0.2),
    "grouped queries (Llama)": (zoo_models.ZOO["own/llama_style_decoder"], 0.9),
    "skips and time (diffusion)": (zoo_models.ZOO["own/diffusion_unet"], 0.25),
    "recurrent (LSTM)": (zoo_models.ZOO["own/lstm_tagger"], 0.95),
    "relative positions (MaxViT)": (timm("test_maxvit"), 0.25),
    "scaled weights (NFNet)": (timm("test_nfnet"), 0.9),
}
MORE = {
    "nested tuples (T5)": (hf.entry("T5", "ForConditionalGeneration", T5, hf.TWO_TEXTS), 0.9),
    "shuffled channels": (zoo_models.ZOO["pytorchcv/shufflenetv2_w1"], 0.25),
    "blocks of all kinds": (timm("test_byobnet"), 0.1),
    "a vision transformer of timm": (timm("test_vit"), 0.5),
    "two inputs": (zoo_models.ZOO["own/two_inputs"], 0.2),
}


@pytest.fixture(autouse=True)
def _quickly(monkeypatch):
    """Whatever stalls ends after 10 seconds of CPU."""
    monkeypatch.setattr(zoo_peel, "LIMIT", 10.0)


def row_of(name: str, entry: Entry, export: bool) -> zoo_judge.Row:
    row = zoo_judge.Row(name=name, side="peel", kind=entry.kind)
    zoo_peel.measure(row, entry, export=export)
    return row


@pytest.mark.parametrize("name", SMALL)
def test_peel_is_right_and_reaches_as_far_as_it_did(name):
    entry, most = SMALL[name]
    row = row_of(name, entry, export=False)
    assert row["outcome"] in ("right", "partly"), row["reason"]
    assert row["reach"] <= most


@pytest.mark.slow
@pytest.mark.parametrize("name", {**SMALL, **MORE})
def test_the_files_are_right_too(name):
    entry, most = {**SMALL, **MORE}[name]
    row = row_of(name, entry, export=True)
    assert row["outcome"] in ("right", "partly"), row["reason"]
    assert row["reach"] <= most


def with_samples(name: str) -> zoo_judge.Row:
    entry, _ = {**SMALL, **MORE}[name]
    row = zoo_judge.Row(name=name, side="samples", kind=entry.kind)
    zoo_samples.measure(row, entry)
    return row


@pytest.mark.parametrize("name", ["channels last (MTCNN)", "static heads (ViT)"])
def test_repair_brings_it_nearer(name):
    row = with_samples(name)
    assert row["outcome"] == "nearer", row["reason"]
    assert row["distance"][1] < row["distance"][0]


@pytest.mark.slow
@pytest.mark.parametrize("name", {**SMALL, **MORE})
def test_samples_never_break_anything(name):
    assert with_samples(name)["outcome"] in ("nearer", "not nearer")


def test_every_name_of_the_zoo_has_a_family_and_a_kind():
    assert len(zoo_models.ZOO) >= 150
    assert {entry.kind for entry in zoo_models.ZOO.values()} == {"cnn", "transformer", "other"}
    assert zoo_models.chosen(["*resnet18"], ["torchvision"]) == ["torchvision/resnet18"]


@pytest.mark.slow
def test_the_script_goes_on_where_it_stopped_and_writes_the_page(tmp_path, peel_environment):
    def run(*arguments: str) -> str:
        command = [sys.executable, zoo_judge.__file__.replace("zoo_judge", "zoo"), "--results", "rows.jsonl"]
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, env=peel_environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    first = run("--only", "own/mlp")
    assert "peel   own/mlp: right" in first
    assert "plain  own/mlp: right" in first
    assert run("--only", "own/mlp") == ""
    assert "own/mlp: runs" in run("--only", "own/mlp", "--check")
    assert "own/mlp: nearer" in run("--only", "own/mlp", "--side", "samples")
    run("--table", "page.md")
    page = (tmp_path / "page.md").read_text("utf-8")
    assert "| `own/mlp` | other " in page
    assert "on 1 of the models, with 24 samples of noise" in page


# --- the judge of the other side


def plainly(entry: Entry) -> zoo_judge.Row:
    row = zoo_judge.Row(name="plain", side="plain", kind=entry.kind)
    zoo_plain.measure(row, entry)
    return row


def test_plain_pruning_of_a_plain_network_is_right():
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                             nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 5))  # fmt: skip

    row = plainly(Entry("cnn", build, ("1,3,8,8",)))
    assert row["outcome"] == "right", row["reason"]
    assert row["ratio"] < 0.6


def test_plain_pruning_of_regrouped_heads_is_found_wrong():
    assert plainly(SMALL["heads regrouped (BERT)"][0])["outcome"] == "wrong"


def test_what_is_left_is_found_by_value():
    entry = Entry("cnn", lambda: nn.Conv2d(6, 10, 3), ("1,6,8,8",))
    module = liven(entry)
    slim = nn.Conv2d(4, 7, 3)
    rows, columns = torch.tensor([0, 1, 3, 4, 6, 8, 9]), torch.tensor([0, 2, 3, 5])
    with torch.no_grad():
        slim.weight.copy_(module.weight[rows][:, columns])
        slim.bias.copy_(module.bias[rows])
    kept = zoo_plain.kept_entries(module, slim)
    assert kept["weight"][0].tolist() == kept["bias"][0].tolist() == rows.tolist()
    assert kept["weight"][1].tolist() == columns.tolist()
    with torch.no_grad():
        slim.weight.normal_()
    with pytest.raises(ValueError, match="no selection"):
        zoo_plain.kept_entries(module, slim)


def test_the_final_layers_are_those_before_the_output():
    module = liven(zoo_models.ZOO["own/face_rnet"])
    layers = zoo_plain.output_layers(module, inputs_of(zoo_models.ZOO["own/face_rnet"], module))
    assert set(layers) == {module.face, module.box}
