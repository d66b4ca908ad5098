"""timm: the smallest member of each family, at its usual image size, which peel reads from the model."""

from __future__ import annotations

from functools import partial

from torch import nn

from zoo_models.entry import Entry

CNNS = (
    "resnet50d", "seresnet50", "ecaresnet50d", "skresnet18", "resnest50d",
    "res2net50_26w_4s", "gcresnet33ts", "legacy_seresnext26_32x4d", "nf_resnet50", "nfnet_l0",
    "resnetv2_50", "regnety_004", "regnetz_005", "gernet_s", "repvgg_a0", "mobileone_s0", "rexnet_100", "tresnet_m",
    "ese_vovnet19b_dw", "legacy_xception", "inception_v4", "dpn68", "dla34", "cspresnet50",
    "cspdarknet53", "darknet53", "selecsls42b", "hrnet_w18_small", "rdnet_tiny",
    "mobilenetv3_small_100", "mobilenetv4_conv_small", "ghostnet_100", "tinynet_e", "mixnet_s",
    "mnasnet_small", "fbnetc_100", "hardcorenas_a", "lcnet_050", "efficientnet_lite0",
    "convnext_atto", "convnextv2_atto", "convmixer_768_32", "fasternet_t0", "starnet_s1",
    "repvit_m0_9", "mambaout_femto", "focalnet_tiny_srf", "fastvit_t8", "bat_resnext26ts",
)  # fmt: skip
TRANSFORMERS = (
    "vit_tiny_patch16_224", "vit_small_patch16_224", "deit_tiny_patch16_224",
    "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224",
    "coatnet_pico_rw_224", "maxvit_tiny_tf_224", "efficientformer_l1", "levit_128s", "mobilevit_s",
    "mobilevitv2_050", "mobilenetv4_hybrid_medium", "caformer_s18", "pvt_v2_b0", "twins_pcpvt_small",
    "xcit_nano_12_p16_224", "cait_xxs24_224", "crossvit_tiny_240", "beit_base_patch16_224", "eva02_tiny_patch14_224",
    "volo_d1_224", "edgenext_xx_small", "efficientvit_b0", "efficientvit_m0", "gcvit_xxtiny", "davit_tiny",
    "nest_tiny", "tnt_s_patch16_224", "visformer_tiny", "pit_ti_224", "convit_tiny", "botnet26t_256",
    "lambda_resnet26t", "halonet26t", "hiera_tiny_224", "tiny_vit_5m_224", "shvit_s1",
)  # fmt: skip
OTHERS = ("mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224", "poolformer_s12", "sequencer2d_s")


def built(name: str) -> nn.Module:
    """A model by its timm name."""
    import timm

    return timm.create_model(name, pretrained=False)


ENTRIES = {
    **{name: Entry("cnn", partial(built, name)) for name in CNNS},
    **{name: Entry("transformer", partial(built, name)) for name in TRANSFORMERS},
    **{name: Entry("other", partial(built, name)) for name in OTHERS},
}
