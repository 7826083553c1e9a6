"""The zoos: names of models, and functions that build each with random weights and an example input."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Built = tuple[nn.Module, Any]
"""A model, and what to call it with: a tensor, a tuple of arguments, or a dictionary of keyword arguments."""
Builder = Callable[[], Built]
Zoo = Callable[[], list[tuple[str, Builder]]]


def find(names: Iterable[str]) -> list[str]:
    """
    Returns full names, such as ``timm/resnet18``, of what a user asks for.

    :param names: Each a zoo, a full name, a model's name in any zoo, or ``module:function``.
    :raises KeyError: If there is no such model.
    """
    return list(dict.fromkeys(full for name in names for full in _expand(name)))


def builder(name: str) -> Builder:
    """
    Returns the function that builds a model.

    :param name: A full name, or ``module:function`` of a function without arguments that returns a model and its
        example input, or only a model, which then gets one image of 224 by 224.
    """
    if ":" in name:
        return lambda: _from_function(name)
    zoo, _, model = name.partition("/")
    return dict(ZOOS[zoo]())[model]


def _expand(name: str) -> list[str]:
    if ":" in name:
        return [name]
    if name in ZOOS:
        return [f"{name}/{model}" for model, _ in ZOOS[name]()]
    zoo, slash, model = name.partition("/")
    for candidate in [zoo] if slash and zoo in ZOOS else ZOOS:
        if (model or name) in dict(ZOOS[candidate]()):
            return [f"{candidate}/{model or name}"]
    msg = f"There is no zoo or model {name!r}; give {', '.join(ZOOS)}, a model of one of them, or module:function."
    raise KeyError(msg)


def _from_function(name: str) -> Built:
    module, _, function = name.partition(":")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it needs is not
        msg = f"{error}: {module!r} must be importable; run this in its folder, or name the folder in PYTHONPATH"
        raise ModuleNotFoundError(msg, name=error.name) from error
    built = getattr(imported, function)()
    return built if isinstance(built, tuple) else (built, image(224))


def image(size: int) -> Tensor:
    return torch.randn(1, 3, size, size)


def torchvision_classifiers() -> list[tuple[str, Builder]]:
    """All image classifiers of torchvision, at their usual input size."""
    import torchvision.models

    def build(name: str) -> Built:
        # These two have a slow initialization of their own.
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, weights=None, **options), image(
            299 if name == "inception_v3" else 224
        )

    return _by_name(build, torchvision.models.list_models(module=torchvision.models))


def torchvision_others() -> list[tuple[str, Builder]]:
    """Segmentation, detection and video of torchvision, and two small models of other kinds."""
    from torchvision.models import detection, segmentation, video

    plain = {"weights": None, "weights_backbone": None}

    def clip(model: nn.Module) -> Built:
        return model, torch.randn(1, 3, 8, 112, 112)

    return [
        ("deeplabv3_resnet50", lambda: (segmentation.deeplabv3_resnet50(**plain), image(224))),
        ("fcn_resnet50", lambda: (segmentation.fcn_resnet50(**plain), image(224))),
        ("lraspp_mobilenet_v3_large", lambda: (segmentation.lraspp_mobilenet_v3_large(**plain), image(224))),
        (
            "ssdlite320_mobilenet_v3_large",
            lambda: (BackboneAndHead(detection.ssdlite320_mobilenet_v3_large(**plain)), image(320)),
        ),
        ("fasterrcnn_resnet50_fpn", lambda: (detection.fasterrcnn_resnet50_fpn(**plain).backbone, image(224))),
        ("r3d_18", lambda: clip(video.r3d_18(weights=None))),
        ("r2plus1d_18", lambda: clip(video.r2plus1d_18(weights=None))),
        ("unet", lambda: (UNet(), image(128))),
        ("audio_convnet", lambda: (AudioConvNet(), torch.randn(1, 1, 8000))),
    ]


class BackboneAndHead(nn.Module):
    """The convolutions of a one-stage detector, without the matching of boxes around them."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.head

    def forward(self, x: Tensor) -> Any:
        return self.head(list(self.backbone(x).values()))


class DoubleConv(nn.Sequential):
    """Two convolutions with BatchNorm."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__(
            nn.Conv2d(incoming, outgoing, 3, padding=1, bias=False),
            nn.BatchNorm2d(outgoing),
            nn.ReLU(inplace=True),
            nn.Conv2d(outgoing, outgoing, 3, padding=1, bias=False),
            nn.BatchNorm2d(outgoing),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """Segmentation with concatenated skip connections: Ronneberger et al., 2015, https://arxiv.org/abs/1505.04597."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256), classes: int = 4) -> None:
        super().__init__()
        pairs = list(itertools.pairwise(widths))
        self.stem = DoubleConv(3, widths[0])
        self.down = nn.ModuleList(DoubleConv(fine, coarse) for fine, coarse in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in reversed(pairs))
        self.merge = nn.ModuleList(DoubleConv(2 * fine, fine) for fine, _ in reversed(pairs))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.stem(x)]
        for down in self.down:
            levels.append(down(nn.functional.max_pool2d(levels[-1], 2)))
        x = levels.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([levels.pop(), up(x)], 1))
        logits: Tensor = self.head(x)
        return logits


class AudioConvNet(nn.Module):
    """A classifier of raw sound by convolutions along time, with residual blocks."""

    def __init__(self, channels: int = 64, blocks: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(1, channels, 41, stride=8, padding=20, bias=False), nn.BatchNorm1d(channels)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(channels, 2 * channels, 9, padding=4, bias=False),
                nn.BatchNorm1d(2 * channels),
                nn.GELU(),
                nn.Conv1d(2 * channels, channels, 9, padding=4, bias=False),
                nn.BatchNorm1d(channels),
            )
            for _ in range(blocks)
        )
        self.head = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        for block in self.blocks:
            x = (x + block(x)).relu()
        logits: Tensor = self.head(x.mean(-1))
        return logits


TIMM = """
    resnet18 repvgg_a0 regnetx_002 densenet121 dpn48b res2net50_26w_4s hrnet_w18_small dla34 ese_vovnet19b_slim_dw
    mobilenetv3_small_100 mobilenetv4_conv_small efficientnet_lite0 tf_efficientnetv2_b0 mnasnet_050 ghostnet_100
    repghostnet_050 rexnet_100 lcnet_050 tinynet_e hgnetv2_b0 starnet_s1 nf_regnet_b0 convnext_atto convnextv2_atto
    inception_next_tiny fastvit_t8 efficientvit_b0 edgenext_xx_small mobilevit_xxs poolformer_s12 mixer_s32_224
    resmlp_12_224 gmlp_ti16_224 vit_tiny_patch16_224 deit_tiny_patch16_224 eva02_tiny_patch14_224 cait_xxs24_224
    xcit_nano_12_p16_224 levit_128s pit_ti_224 swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 davit_tiny
    twins_svt_small coat_tiny crossvit_tiny_240 coatnet_nano_rw_224 maxvit_tiny_tf_224 volo_d1_224 focalnet_tiny_srf
""".split()  # noqa: SIM905 - a list would have a line for each
"""One small model of each of many families."""


def timm_families() -> list[tuple[str, Builder]]:
    """One small model of each of many families of timm, at its usual input size."""

    def build(name: str) -> Built:
        import timm

        model: Any = timm.create_model(name, pretrained=False)
        return model, torch.randn(1, *model.pretrained_cfg["input_size"])

    return _by_name(build, TIMM)


_SIZES = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
_TEXT = {**_SIZES, "vocab_size": 256, "max_position_embeddings": 64}
_DECODER = {**_TEXT, "use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GROUPED = {**_DECODER, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8}
_VISION = {**_SIZES, "image_size": 64, "patch_size": 16}
_STAGES = {"depths": [2, 2, 2], "hidden_sizes": [32, 64, 96]}
_T5 = {"vocab_size": 256, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 3, "num_heads": 4, "use_cache": False}
_SPEECH = {**_SIZES, "conv_dim": (32, 32), "conv_kernel": (10, 3), "conv_stride": (5, 2), "apply_spec_augment": False}
_SPEECH |= {"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
_BART = {"vocab_size": 256, "d_model": 64, "max_position_embeddings": 64, "use_cache": False}
_BART |= {f"{part}_layers": 3 for part in ("encoder", "decoder")}
_BART |= {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
_BART |= {f"{part}_ffn_dim": 128 for part in ("encoder", "decoder")}


def _tokens() -> Tensor:
    return torch.randint(3, 256, (1, 16))


def text() -> Any:
    return {"input_ids": _tokens(), "attention_mask": torch.ones(1, 16, dtype=torch.long)}


def two_texts() -> Any:
    return {"input_ids": _tokens(), "decoder_input_ids": _tokens()}


def picture() -> Any:
    return {"pixel_values": image(64)}


def wave() -> Any:
    return {"input_values": torch.randn(1, 1600)}


def spectrogram() -> Any:
    return {"input_features": torch.randn(1, 80, 64)}


def text_and_picture() -> Any:
    return {**text(), **picture()}


TRANSFORMERS: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "bert": ("BertForSequenceClassification", _TEXT, text),
    "roberta": ("RobertaForSequenceClassification", _TEXT, text),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 256, "dim": 64, "n_layers": 3, "n_heads": 4, "hidden_dim": 128},
        text,
    ),
    "albert": ("AlbertForSequenceClassification", {**_TEXT, "embedding_size": 32}, text),
    "electra": ("ElectraForSequenceClassification", {**_TEXT, "embedding_size": 32}, text),
    "mpnet": ("MPNetModel", _TEXT, text),
    "deberta_v2": ("DebertaV2ForSequenceClassification", {**_TEXT, "relative_attention": True}, text),
    "modernbert": ("ModernBertModel", {**_TEXT, "pad_token_id": 0}, text),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 256, "n_embd": 64, "n_layer": 3, "n_head": 4, "use_cache": False}, text),
    "gpt_neox": ("GPTNeoXForCausalLM", _DECODER, text),
    "opt": ("OPTForCausalLM", {**_DECODER, "ffn_dim": 128, "word_embed_proj_dim": 64}, text),
    "bloom": (
        "BloomForCausalLM",
        {"vocab_size": 256, "hidden_size": 64, "n_layer": 3, "n_head": 4, "use_cache": False},
        text,
    ),
    "llama": ("LlamaForCausalLM", _GROUPED, text),
    "mistral": ("MistralForCausalLM", _GROUPED, text),
    "mixtral": ("MixtralForCausalLM", {**_GROUPED, "num_local_experts": 4}, text),
    "qwen2": ("Qwen2ForCausalLM", _GROUPED, text),
    "qwen3": ("Qwen3ForCausalLM", _GROUPED, text),
    "gemma": ("GemmaForCausalLM", _GROUPED, text),
    "phi": ("PhiForCausalLM", _DECODER, text),
    "mamba": (
        "MambaForCausalLM",
        {"vocab_size": 256, "hidden_size": 64, "num_hidden_layers": 3, "use_cache": False},
        text,
    ),
    "t5_encoder": ("T5EncoderModel", _T5, text),
    "t5": ("T5ForConditionalGeneration", _T5, two_texts),
    "bart": ("BartForConditionalGeneration", _BART, two_texts),
    "vit": ("ViTForImageClassification", _VISION, picture),
    "deit": ("DeiTForImageClassification", _VISION, picture),
    "beit": ("BeitForImageClassification", _VISION, picture),
    "dinov2": ("Dinov2Model", _VISION, picture),
    "swin": (
        "SwinForImageClassification",
        {"image_size": 64, "embed_dim": 32, "depths": [2, 2], "num_heads": [4, 8], "window_size": 4},
        picture,
    ),
    "convnext": ("ConvNextForImageClassification", {**_STAGES, "num_stages": 3}, picture),
    "convnextv2": ("ConvNextV2ForImageClassification", {**_STAGES, "num_stages": 3}, picture),
    "segformer": (
        "SegformerForSemanticSegmentation",
        {"hidden_sizes": [32, 64, 96, 128], "num_attention_heads": [1, 2, 4, 8], "decoder_hidden_size": 64},
        picture,
    ),
    "resnet": ("ResNetForImageClassification", {**_STAGES, "embedding_size": 32}, picture),
    "mobilevit": ("MobileViTForImageClassification", {"image_size": 64}, picture),
    "wav2vec2": ("Wav2Vec2Model", _SPEECH, wave),
    "hubert": ("HubertModel", _SPEECH, wave),
    "whisper_encoder": (
        "WhisperModel",
        {**_BART, "num_mel_bins": 80, "max_source_positions": 32, "pad_token_id": 0},
        spectrogram,
    ),
    "clip": (
        "CLIPModel",
        {
            "text_config": {**_TEXT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
            "vision_config": _VISION,
            "projection_dim": 64,
        },
        text_and_picture,
    ),
}
"""Family to the class, what differs from its default config, and the example input."""


def transformers_families() -> list[tuple[str, Builder]]:
    """Families of transformers, each as a small random model."""

    def build(name: str) -> Built:
        import transformers

        class_name, options, example = TRANSFORMERS[name]
        model_class = getattr(transformers, class_name)
        model = model_class(model_class.config_class(**options))
        return model.get_encoder() if name == "whisper_encoder" else model, example()

    return _by_name(build, TRANSFORMERS)


def _by_name(build: Callable[[str], Built], names: Iterable[str]) -> list[tuple[str, Builder]]:
    return [(name, partial(build, name)) for name in names]


ZOOS: dict[str, Zoo] = {
    "torchvision": torchvision_classifiers,
    "torchvision-other": torchvision_others,
    "timm": timm_families,
    "transformers": transformers_families,
}
