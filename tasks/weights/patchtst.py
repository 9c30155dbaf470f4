"""Hugging Face's PatchTST, for prediction and for pretraining.

Ours reads whether a value was observed beside the value itself: those weights are zero here. Theirs masks a
window by zeros before the projection, which is a mask token equal to the projection's bias. Its head on the
mean of L windows is a head on all of them, each with an L-th of the weight, and is written back as such.

Shapes: D width, L windows, P steps of a window, H horizon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones.encoder import Block, Encoder
from ...tokenizers.errors import UserError
from ...tokenizers.series import SeriesWindows
from .activations import check_gelu
from .family import Carried, Family, Source
from .names import State, Table, beneath, carry, count, restore, with_stem
from .shapes import ratio_of

TOKENIZER, ENCODER, MEMBERS = "tokenizers.series.", "encoder.", "objective.members."
EMBEDDER = "encoder.embedder.input_embedding"
POSITIONS = "encoder.positional_encoder.position_enc"
CLASS = "encoder.positional_encoder.cls_token"
FORECAST, REBUILD = f"{MEMBERS}forecast.head.", f"{MEMBERS}reconstruction.head."
STEM = "encoder.layers.*."


def table_of(batch: bool) -> Table:
    """Names within a block, with batch norm or layer norm."""
    inner = ".batchnorm" if batch else ""
    return {
        tuple(f"{STEM}self_attn.{part}_proj.*" for part in "qkv"): f"{ENCODER}blocks.*.attn.qkv.*",
        f"{STEM}self_attn.out_proj.*": f"{ENCODER}blocks.*.attn.proj.*",
        f"{STEM}norm_sublayer1{inner}.*": f"{ENCODER}blocks.*.norm1.*",
        f"{STEM}ff.0.*": f"{ENCODER}blocks.*.mlp.fc1.*",
        f"{STEM}ff.3.*": f"{ENCODER}blocks.*.mlp.fc2.*",
        f"{STEM}norm_sublayer3{inner}.*": f"{ENCODER}blocks.*.norm2.*",
    }


def read(source: Source) -> Carried:
    """Hugging Face's weights as ours.

    Raises:
        UserError: there is no `config.json`, or it asks for what is no part here.
    """
    config = _checked(source.config)
    inside, outside = beneath(source.state, f"{EMBEDDER}.weight")
    batch = config.get("norm_type", "batchnorm") == "batchnorm"
    weights, rest = carry(inside, table_of(batch))
    weights |= with_stem(_tokenizer(rest, bool(config.get("use_cls_token"))), TOKENIZER)
    windows = len(weights[f"{TOKENIZER}position"])
    head = _head(outside, config, windows)
    objectives, taken = _objectives(head), {"head.projection", "head.linear"} if head else set()
    facts = {"context": config["context_length"], "horizon": config["prediction_length"], "step": "unknown"}
    series: dict[str, list[str]] = {"channels": [], "names": [], "mean": [], "scale": []}
    return Carried(
        weights=weights | head,
        model=_model(weights, config, batch) | {"objectives": objectives},
        modality="series",
        facts=facts | {"season": 1} | series,
        reading={"context": facts["context"], "horizon": facts["horizon"]},
        aside=sorted(name for name in outside if name.rpartition(".")[0] not in taken),
        unexpected=sorted(rest),
    )


def _checked(config: Mapping[str, Any]) -> Mapping[str, Any]:
    if "context_length" not in config:
        raise UserError(
            "PatchTST's weights must come with a config.json that says context_length, but have none"
        )
    asked = {
        "attention across channels": config.get("channel_attention"),
        "a projection for each channel": not config.get("share_embedding", True),
        "scaling other than by the deviation": config.get("scaling", "std") not in ("std", True),
    }
    if found := [name for name, there in asked.items() if there]:
        raise UserError(f"PatchTST with {found[0]} has no part here to put its weights into")
    check_gelu(config, "activation_function")
    return config


def _tokenizer(rest: State, class_token: bool) -> State:
    """Projection, positions, mask token and class token, taken out of `rest`."""
    weight, bias = rest.pop(f"{EMBEDDER}.weight"), rest.pop(f"{EMBEDDER}.bias")
    position = rest.pop(POSITIONS)
    prefix = position[:0]
    if class_token:
        prefix, position = rest.pop(CLASS).flatten(0, 2) + position[:1], position[1:].clone()
    return {
        "project.weight": torch.cat([weight, torch.zeros_like(weight)], dim=1),
        "project.bias": bias,
        "mask_token": bias.clone(),
        "position": position,
        "prefix_tokens": prefix,
    }


def _head(outside: State, config: Mapping[str, Any], windows: int) -> State:
    """The head for prediction on all windows `(H, L * D)`, or the one for pretraining `(P, D)`."""
    pooling = config.get("pooling_type")
    if "head.linear.weight" in outside:
        return {f"{REBUILD}{kind}": outside[f"head.linear.{kind}"] for kind in ("weight", "bias")}
    weight = outside.get("head.projection.weight")
    if weight is None or config.get("use_cls_token") or pooling not in ("mean", None):
        return {}
    if len(weight) != config["prediction_length"]:  # another head on the same name, such as a classifier
        return {}
    flat = weight.repeat(1, windows) / windows if pooling == "mean" else weight
    return {f"{FORECAST}weight": flat, f"{FORECAST}bias": outside["head.projection.bias"]}


def _objectives(head: State) -> dict[str, Any]:
    if f"{FORECAST}weight" in head:
        arguments = {"quantiles": [0.5], "skip": False}
        return {"forecast": _named("objectives.forecasting.Forecasting", arguments)}
    return {"reconstruction": _named("objectives.reconstruction.Reconstruction", {})} if head else {}


def _named(path: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"class_path": f"triptych.{path}", "init_args": dict(arguments)}


def _model(weights: State, config: Mapping[str, Any], batch: bool) -> dict[str, Any]:
    """Tokenizer and encoder of a config."""
    width = len(weights[f"{TOKENIZER}project.bias"])
    tokenizer = {
        "patch": config["patch_length"],
        "stride": config["patch_stride"],
        "end": "align",
        "normalise": "floored",
        "prefix": ["class"] if len(weights[f"{TOKENIZER}prefix_tokens"]) else [],
    }
    block = {
        "norm": "batch" if batch else "layer",
        "norm_first": config.get("pre_norm", True),
        "norm_eps": config.get("norm_eps", 1e-5),
    }
    return {
        "tokenizers": {"series": _named("tokenizers.series.SeriesWindows", tokenizer)},
        "encoder": {
            "width": width,
            "depth": count(weights, f"{ENCODER}blocks.*.attn.qkv.weight"),
            "heads": config["num_attention_heads"],
            "mlp_ratio": ratio_of(width, len(weights[f"{ENCODER}blocks.0.mlp.fc1.weight"])),
            "final_norm": False,
            "block": block,
        },
    }


def write(ours: State, model: nn.Module) -> State:
    """Our weights as Hugging Face's; a head for prediction is written for `pooling_type: null`.

    Raises:
        UserError: the model has a part that PatchTST has none of, or reads what was missing.
    """
    tokenizer, encoder = model.tokenizers["series"], model.encoder  # type: ignore[index]
    assert isinstance(encoder, Encoder) and isinstance(encoder.blocks[0], Block)
    if (
        not isinstance(tokenizer, SeriesWindows)
        or tokenizer.positions != "learned"
        or tokenizer.end != "align"
    ):
        raise UserError("the format expects windows with learnt positions that end with the series")
    if tokenizer.level or tokenizer.known or tokenizer.normalise not in ("instance", "floored"):
        raise UserError(
            "the format expects series normalised by mean and deviation, and nothing read besides"
        )
    weight = ours[f"{TOKENIZER}project.weight"]
    value, observed = weight.chunk(2, dim=1)
    if observed.any():
        raise UserError("PatchTST cannot read which values are missing, but this model's projection does")
    batch = isinstance(encoder.blocks[0].norm1, nn.BatchNorm1d)
    blocks = {name: tensor for name, tensor in ours.items() if name.startswith(ENCODER)}
    state, rest = restore(blocks, table_of(batch))
    if rest:
        raise UserError(f"the format must have a name for every weight, but has none for {min(rest)!r}")
    state |= {f"{EMBEDDER}.weight": value, f"{EMBEDDER}.bias": ours[f"{TOKENIZER}project.bias"]}
    state |= _positions(ours)
    heads = {"head.projection": FORECAST, "head.linear": REBUILD}
    return with_stem(state, "model.") | {
        f"{theirs}.{kind}": ours[stem + kind]
        for theirs, stem in heads.items()
        for kind in ("weight", "bias")
        if stem + kind in ours
    }


def _positions(ours: Mapping[str, Tensor]) -> State:
    """Positions, and a class token whose position is zero."""
    prefix, position = ours[f"{TOKENIZER}prefix_tokens"], ours[f"{TOKENIZER}position"]
    if not len(prefix):
        return {POSITIONS: position}
    if len(prefix) > 1:
        raise UserError(f"PatchTST has at most a class token, but this model has {len(prefix)} prefix tokens")
    return {POSITIONS: torch.cat([torch.zeros_like(prefix), position]), CLASS: prefix[None, None]}


def knows(source: Source) -> bool:
    """Whether windows are projected under Hugging Face's name."""
    return any(f".{EMBEDDER}." in f".{name}" for name in source.state)


FAMILIES = (Family("hf-patchtst", knows, read, write),)
