"""Example inputs where the user gives none."""

import copy

import pytest
import torch
from torch import nn

from peelcli.errors import InputError
from peelcli.records import Subject
from peelcli.sources.inputs import flags, guess, make, parse, texts


def cifar(size):
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * size * size, 2))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (cifar(32), "1x3x32x32"),
        (cifar(28), "1x3x28x28"),
        (cifar(299), "1x3x299x299"),
        (nn.Sequential(nn.Conv2d(5, 4, 3), nn.AdaptiveAvgPool2d(1)), "1x5x224x224"),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(4 * 126, 2)), "1x2x128"),
        (nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 16**3, 2)), "1x1x16x16x16"),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), "1x784"),
        (nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), "1x16:int64:<9"),
        (nn.Conv2d(3, 4, 3), "1x3x224x224"),
    ],
)
def test_first_layers_and_trial_sizes(module, shape):
    module.train()
    before = copy.deepcopy(module.state_dict())
    (spec,), note = guess(module)
    assert str(spec) == shape
    assert note.startswith(f"input {shape} guessed from the layer ")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module.training


def test_what_timm_and_transformers_say_of_themselves_comes_first():
    module = cifar(32)
    module.pretrained_cfg = {"input_size": (3, 32, 32)}
    assert guess(module)[1].startswith("input 1x3x32x32 guessed from timm's pretrained_cfg")
    module.pretrained_cfg = {"input_size": (3, 99, 99)}  # built at another size than its config says
    assert str(guess(module)[0][0]) == "1x3x32x32"


def test_a_layer_that_is_defined_first_but_runs_last():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            return self.head(self.conv(x).mean((2, 3)))

    assert str(guess(Backwards())[0][0]) == "1x3x224x224"


def test_a_module_that_can_not_run_on_meta_is_tried_for_real():
    class Looks(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return self.fc(x) if x.sum().item() < 1e9 else x

    assert str(guess(Looks())[0][0]) == "1x4"


def test_nothing_that_runs():
    class Picky(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            raise RuntimeError("I want\na list")

    with pytest.raises(InputError) as caught:
        guess(Picky())
    assert "none could be guessed: I want" in caught.value.message
    assert "forward(x)" in caught.value.message
    assert "--input" in caught.value.hint


def test_a_keyword_that_is_needed_is_told_at_once():
    class Keyword(nn.Linear):
        def forward(self, x, *, scale):
            return super().forward(x) * scale

    with pytest.raises(InputError) as caught:
        guess(Keyword(2, 2))
    assert caught.value.message.startswith("forward takes scale by keyword only")
    assert "forward(x, scale (keyword only))" in caught.value.message


class Parts(nn.Module):
    """Layers by name; the subclasses say how they are called."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)


class Denoiser(Parts):
    def forward(self, x, t, context):
        time = self.time(torch.sin(t[:, None].float() * torch.arange(8)))
        return self.conv(x) + (time + self.to_k(context).mean(1))[:, :, None, None]


class Masked(Parts):
    def forward(self, tokens, attention_mask):
        return self.fc(self.table(tokens) * attention_mask[..., None])


class Two(Parts):
    def forward(self, vector, image):
        return self.fc(vector) + self.conv(image).mean((2, 3))


class Joined(Parts):
    def forward(self, image, vector):
        return self.conv(image).mean((2, 3)) + self.fc(vector)


class Listed(Parts):
    def forward(self, images: list[torch.Tensor]):
        return [self.conv(image) for image in images]


class OnlyListed(Parts):
    def forward(self, images):
        if not isinstance(images, list):
            raise TypeError("a list is expected")
        return [self.conv(image) for image in images]


class Sound(Parts):
    def forward(self, waveform):
        return self.conv(waveform[:, None])


class Sizes(Parts):
    def forward(self, x, size: int, flip: bool):
        return self.conv(x.flip(0) if flip else x)[..., :size]


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (
            Denoiser(conv=nn.Conv2d(4, 16, 3), time=nn.Linear(8, 16), to_k=nn.Linear(24, 16)),
            "x=1x4x32x32 t=1:int64:<1000 context=1x16x24",
        ),
        (Masked(table=nn.Embedding(50, 8), fc=nn.Linear(8, 2)), "tokens=1x16:int64:<50 attention_mask=1x16:int64:1..1"),
        (Two(fc=nn.Linear(8, 2), conv=nn.Conv2d(3, 2, 3)), "vector=1x8 image=1x3x224x224"),
        (Joined(conv=nn.Conv2d(3, 2, 3), fc=nn.Linear(8, 2)), "image=1x3x224x224 vector=1x8"),
        (Listed(conv=nn.Conv2d(1, 2, 3)), "[1x224x224]"),
        (OnlyListed(conv=nn.Conv2d(3, 2, 3)), "[3x224x224]"),
        (Sound(conv=nn.Conv1d(1, 2, 400, 160)), "1x16000"),
        (Sizes(conv=nn.Conv2d(3, 2, 3)), "x=1x3x224x224 size=1 flip=False"),
        (nn.Transformer(16, 2, 1, 1, 16, batch_first=True), "src=1x16x16 tgt=1x16x16"),
        (nn.LSTM(7, 8), "1x16x7"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_by_the_names_of_the_arguments(module, told):
    specs, note = guess(module)
    assert " ".join(map(str, specs)) == told
    assert " and ".join(map(str, specs)) in note


def test_several_arguments_of_which_nothing_fits():
    class Odd(nn.Bilinear):
        def forward(self, left, right):
            raise RuntimeError("never")

    with pytest.raises(InputError) as caught:
        guess(Odd(3, 4, 2))
    assert "forward(left, right)" in caught.value.message
    assert "--input left=SHAPE --input right=SHAPE" in caught.value.hint


def test_a_guess_as_flags_is_quoted_for_the_shell():
    assert flags([parse("ids=1x2:int64:<9"), parse("x=1x2")]) == "--input 'ids=1x2:int64:<9' --input x=1x2"


def test_an_index_that_is_too_large_shows_only_with_values():
    class Paired(Parts):
        def forward(self, user_id, item_id):
            return self.users(user_id) * self.items(item_id)

    specs, _ = guess(Paired(users=nn.Embedding(50, 4), items=nn.Embedding(20, 4)))
    assert [str(spec) for spec in specs] == ["user_id=1x16:int64:<20", "item_id=1x16:int64:<20"]


# --- transformers -----------------------------------------------------------------------------------------------------

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SMALL_T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
SEQUENCES = {
    **{"vocab_size": 99, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2},
    **{"decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
}
VISION = {**TINY, "image_size": 32, "patch_size": 8}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
IDS = "1x16:int64:<99"
DECODED = "input_ids=1x16:int64:<99 use_cache=False"  # with a cache there would be no ONNX file
TWO_TEXTS = "input_ids=1x16:int64:<99 decoder_input_ids=1x16:int64:<99 use_cache=False"

ENDED = "input_ids=1x16:int64:2..98 decoder_input_ids=1x16:int64:<99 use_cache=False"


@pytest.mark.parametrize(
    ("model", "settings", "told"),
    [
        ("BertForSequenceClassification", {"vocab_size": 99, **TINY}, IDS),
        ("GPT2LMHeadModel", {"vocab_size": 99, "n_embd": 32, "n_layer": 1, "n_head": 2}, DECODED),
        ("LlamaForCausalLM", {"vocab_size": 99, "num_key_value_heads": 2, **TINY}, DECODED),
        ("T5ForConditionalGeneration", SMALL_T5, TWO_TEXTS),
        ("T5EncoderModel", SMALL_T5, IDS),
        ("BartForConditionalGeneration", SEQUENCES, TWO_TEXTS),
        ("BartForSequenceClassification", {**SEQUENCES, "eos_token_id": 2}, ENDED),
        (
            "WhisperForConditionalGeneration",
            {**SEQUENCES, **SPECIAL, "max_source_positions": 60},
            "input_features=1x80x120 decoder_input_ids=1x16:int64:<99 use_cache=False",
        ),
        ("Speech2TextModel", SEQUENCES, "input_features=1x128x80 decoder_input_ids=1x16:int64:<99"),
        ("ViTForImageClassification", VISION, "1x3x32x32"),
        ("YolosForObjectDetection", {**TINY, "image_size": [64, 96]}, "1x3x64x96"),
        ("ASTForAudioClassification", {**TINY, "max_length": 64, "num_mel_bins": 32}, "1x64x32"),
        (
            "Wav2Vec2ForCTC",
            {**TINY, "conv_dim": [32] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2},
            "1x16000",
        ),
        ("VideoMAEForVideoClassification", {**VISION, "num_frames": 4}, "1x4x3x32x32"),
        (
            "CLIPModel",
            {"text_config": {"vocab_size": 99, **TINY}, "vision_config": VISION, "projection_dim": 16},
            "input_ids=1x16:int64:<99 pixel_values=1x3x32x32",
        ),
        ("PatchTSTModel", {"d_model": 32, "num_hidden_layers": 1, "num_attention_heads": 2}, "1x32x1"),
    ],
)
def test_transformers_by_their_config(model, settings, told):
    transformers = pytest.importorskip("transformers")
    cls = getattr(transformers, model)
    module = cls(cls.config_class(**settings))
    specs, note = guess(module)
    assert " ".join(map(str, specs)) == told
    assert "guessed from transformers' config" in note
    example = make(specs, module)
    again = make([parse(text) for text in texts(Subject(module, example, "x"))], module)
    assert texts(Subject(module, again, "x")) == texts(Subject(module, example, "x"))
