"""What a model object of another project says of itself: the part of its config that its tensors do not."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...tokenizers.errors import UserError


def described(model: nn.Module) -> dict[str, Any]:
    """What is known of a module of timm, transformers or torchaudio.

    Raises:
        UserError: it is of none of them.
    """
    project = type(model).__module__.partition(".")[0]
    describe = {"timm": _timm, "transformers": _transformers, "torchaudio": _torchaudio}.get(project)
    if describe is None:
        raise UserError(
            f"expected a model of timm, transformers or torchaudio, but got a {type(model).__name__}; "
            "save its state dict to a file and import that"
        )
    return describe(model)


def _timm(model: Any) -> dict[str, Any]:
    if not hasattr(model, "patch_embed") or not hasattr(model, "blocks"):
        raise UserError(f"of timm only vision transformers can be imported, but got a {type(model).__name__}")
    block = model.blocks[0]
    arguments = {
        "img_size": list(model.patch_embed.img_size),
        "num_heads": block.attn.num_heads,
        "norm_eps": block.norm1.eps,
    }
    return {"model_args": arguments, "pretrained_cfg": dict(model.pretrained_cfg)}


def _transformers(model: Any) -> dict[str, Any]:
    config: dict[str, Any] = model.config.to_dict()
    return config


def _torchaudio(model: Any) -> dict[str, Any]:
    speech = getattr(model, "wav2vec2", model)  # HuBERT's pretraining model wraps one
    transformer = speech.encoder.transformer
    return {
        "heads": transformer.layers[0].attention.num_heads,
        "conv_stride": [layer.stride for layer in speech.feature_extractor.conv_layers],
        "do_stable_layer_norm": transformer.layers[0].layer_norm_first,
    }
