"""transformers: built from config classes, small but for three that everyone knows at full size."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from zoo_models.entry import Entry

Settings = dict[str, Any]
SMALL: Settings = {
    "vocab_size": 1000, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512,
    "max_position_embeddings": 128,
}  # fmt: skip
# Token ids that a config names by default lie outside of a vocabulary of 1000.
CAUSAL: Settings = {
    **SMALL, "num_key_value_heads": 2, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
VISION: Settings = {
    "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512, "image_size": 128,
}  # fmt: skip
AUDIO: Settings = {
    "vocab_size": 32, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512,
    "conv_dim": (64,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
TWO_TEXTS = ("input_ids:1,16:int64", "decoder_input_ids:1,16:int64")
SPEECH = ("1,8000",)


def built(config: str, model: str, settings: Settings) -> nn.Module:
    """A model class on a config; nothing is downloaded."""
    import transformers

    return getattr(transformers, model)(getattr(transformers, config)(**settings))


def entry(config: str, model: str, settings: Settings, inputs: tuple[str, ...] | None = None, kind: str = "") -> Entry:
    return Entry(kind or "transformer", partial(built, config + "Config", config + model, settings), inputs)


def detr() -> nn.Module:
    """DETR on transformers' own ResNet instead of timm's."""
    import transformers

    trunk = transformers.ResNetConfig(out_features=["stage4"])
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone_config=trunk, backbone=None, use_pretrained_backbone=False, d_model=128,
        encoder_layers=2, decoder_layers=2, encoder_ffn_dim=512, decoder_ffn_dim=512, encoder_attention_heads=4,
        decoder_attention_heads=4, num_queries=20,
    )  # fmt: skip
    return transformers.DetrForObjectDetection(config)


def whisper_encoder() -> nn.Module:
    """Whisper's encoder alone, at the sizes of its "tiny"; spectrograms of 30 seconds."""
    import transformers

    config = transformers.WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)
    return transformers.WhisperModel(config).encoder


def siblings() -> dict[str, Entry]:
    """Decoders that share their settings."""
    names = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "phi": "Phi"}
    return {name: entry(config, "ForCausalLM", CAUSAL) for name, config in names.items()}


ENTRIES = {
    "bert_base": entry("Bert", "Model", {}),
    "distilbert": entry("DistilBert", "Model", {}),
    "gpt2": entry("GPT2", "LMHeadModel", {"use_cache": False}),
    "bert_classifier": entry("Bert", "ForSequenceClassification", SMALL),
    "roberta": entry("Roberta", "Model", SMALL),
    "albert": entry("Albert", "Model", {**SMALL, "embedding_size": 64}),
    "electra": entry("Electra", "Model", {**SMALL, "embedding_size": 64}),
    "deberta_v2": entry("DebertaV2", "Model", {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "mobilebert": entry("MobileBert", "Model", {"vocab_size": 1000, "num_hidden_layers": 2}),
    "gpt_neo": entry(
        "GPTNeo", "ForCausalLM",
        {"vocab_size": 1000, "hidden_size": 128, "num_layers": 2, "num_heads": 4, "use_cache": False,
         "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 128,
         "bos_token_id": 1, "eos_token_id": 2},
    ),
    "opt": entry(
        "OPT", "ForCausalLM",
        {"vocab_size": 1000, "hidden_size": 128, "num_hidden_layers": 2, "ffn_dim": 512, "num_attention_heads": 4,
         "word_embed_proj_dim": 128, "max_position_embeddings": 128, "use_cache": False},
    ),
    **siblings(),
    "gemma": entry("Gemma", "ForCausalLM", {**CAUSAL, "head_dim": 32}),
    "bloom": entry(
        "Bloom", "ForCausalLM",
        {"vocab_size": 1000, "hidden_size": 128, "n_layer": 2, "n_head": 4, "use_cache": False,
         "bos_token_id": 1, "eos_token_id": 2},
    ),
    "t5": entry(
        "T5", "ForConditionalGeneration",
        {"vocab_size": 1000, "d_model": 128, "d_kv": 32, "d_ff": 512, "num_layers": 2, "num_heads": 4,
         "use_cache": False},
        TWO_TEXTS,
    ),
    "bart": entry(
        "Bart", "ForConditionalGeneration",
        {"vocab_size": 1000, "d_model": 128, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 512,
         "decoder_ffn_dim": 512, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
         "max_position_embeddings": 128, "use_cache": False},
        TWO_TEXTS,
    ),
    "vit": entry("ViT", "ForImageClassification", VISION),
    "deit": entry("DeiT", "ForImageClassification", VISION),
    "beit": entry("Beit", "ForImageClassification", VISION),
    "dinov2": entry("Dinov2", "Model", {**VISION, "patch_size": 16}),
    "swin": entry(
        "Swin", "ForImageClassification",
        {"image_size": 224, "embed_dim": 48, "depths": [2, 2, 2, 2], "num_heads": [2, 4, 8, 16]},
    ),
    "segformer": entry("Segformer", "ForSemanticSegmentation", {}, ("1,3,128,128",)),
    "mobilevit": entry("MobileViT", "ForImageClassification", {}),
    "poolformer": entry("PoolFormer", "ForImageClassification", {}, kind="other"),
    "convnext": entry("ConvNext", "ForImageClassification", {"hidden_sizes": [48, 96, 192, 384]}, kind="cnn"),
    "resnet": entry("ResNet", "ForImageClassification", {}, kind="cnn"),
    "regnet": entry("RegNet", "ForImageClassification", {"hidden_sizes": [64, 128, 256, 512], "groups_width": 32},
                    kind="cnn"),
    "mobilenet_v2": entry("MobileNetV2", "ForImageClassification", {}, kind="cnn"),
    "detr": Entry("transformer", detr, ("1,3,128,128",)),
    "clip_text": entry("CLIPText", "Model", {**SMALL, "bos_token_id": 998, "eos_token_id": 999}),
    "clip_vision": entry("CLIPVision", "Model", {**VISION, "patch_size": 16}),
    "whisper_encoder": Entry("transformer", whisper_encoder, ("1,80,3000",)),
    "wav2vec2": entry("Wav2Vec2", "Model", AUDIO, SPEECH),
    "hubert": entry("Hubert", "Model", AUDIO, SPEECH),
    "ast": entry(
        "AST", "ForAudioClassification",
        {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512,
         "max_length": 256},
        ("1,256,128",),
    ),
    "mamba": entry(
        "Mamba", "Model", {"vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2, "use_cache": False},
        kind="other",
    ),
}  # fmt: skip
