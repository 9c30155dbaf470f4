"""What all families of speech encoders share: wav2vec 2.0's shape, HuBERT's and XLS-R's, and their heads.

Shapes: D width, F features, G codebooks, V codes of each, K width of a quantised vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...backbones.encoder import Block, Encoder
from ...backbones.layers import Mlp
from ...tokenizers.audio_logmel import LogMelFrames
from ...tokenizers.audio_waveform import WAV2VEC2, WaveformFrames
from ...tokenizers.errors import UserError
from .family import Carried
from .names import State, Table, aside, beneath, carry, count, restore
from .shapes import heads_of, ratio_of

TOKENIZER, ENCODER, OBJECTIVE = "tokenizers.audio.", "encoder.", "objective.members.wav2vec2."
POSITION = f"{TOKENIZER}position.conv."
RELATIVE = f"{ENCODER}relative.embedding.weight"
STRIDES = tuple(stride for _, _, stride in WAV2VEC2)


@dataclass(frozen=True)
class SpeechNames:
    """How a family names its parts.

    Attributes:
        convolution: of the front end, `*` its number and `weight` or `bias`.
        norms: after a convolution, by our name of the norm.
        features: the norm of all features.
        project: features to the width.
        position: the positional convolution.
        blocks: a block, `*` its number.
        parts: within a block: queries, keys and values, output, two norms, two linear maps; and where the
            family has WavLM, the linear map and the factor of its gates.
        last: the norm before (post-norm) or after (pre-norm) all blocks.
        mask: the mask token.
        buckets: of WavLM's relative positions.
        old_norm: whether weight norm is written as `weight_g` and `weight_v`.
        aside: beginnings of names that are known and not taken.
    """

    convolution: str
    norms: Mapping[str, str]
    features: str
    project: str
    position: str
    blocks: str
    parts: Mapping[str, str]
    last: str
    mask: str | None
    buckets: str | None = None
    old_norm: bool = False
    aside: tuple[str, ...] = ()


@dataclass(frozen=True)
class SpeechTraits:
    """What the tensors themselves do not say; None goes by what published encoders have.

    Attributes:
        heads: of attention.
        strides: of the convolutions.
        pre_norm: the kind of block; encoders with layer norm in front have it.
        normalise: whether each clip is given mean 0 and variance 1; the same.
        rate: Hz.
        eps: of the norms.
        distance: tokens from which on WavLM's relative positions are alike.
    """

    heads: int | None = None
    strides: Sequence[int] | None = None
    pre_norm: bool | None = None
    normalise: bool | None = None
    rate: int = 16_000
    eps: float = 1e-5
    distance: int = 800


def table_of(names: SpeechNames, norm: str, pre_norm: bool) -> Table:
    """All of a family's names and ours."""
    block = {part: f"{names.blocks}.{theirs}.*" for part, theirs in names.parts.items()}
    return {
        names.convolution: f"{TOKENIZER}layers.*.conv.*",
        names.norms[norm]: f"{TOKENIZER}layers.*.{norm}_norm.*",
        f"{names.features}.*": f"{TOKENIZER}feature_norm.*",
        f"{names.project}.*": f"{TOKENIZER}project.*",
        f"{names.position}.bias": f"{POSITION}bias",
        f"{names.position}.parametrizations.weight.*": f"{POSITION}parametrizations.weight.*",
        f"{names.last}.*": f"{ENCODER}norm.*" if pre_norm else f"{TOKENIZER}norm.*",
        tuple(block[part] for part in ("q", "k", "v")): f"{ENCODER}blocks.*.attn.qkv.*",
        block["out"]: f"{ENCODER}blocks.*.attn.proj.*",
        block["norm1"]: f"{ENCODER}blocks.*.norm1.*",
        block["fc1"]: f"{ENCODER}blocks.*.mlp.fc1.*",
        block["fc2"]: f"{ENCODER}blocks.*.mlp.fc2.*",
        block["norm2"]: f"{ENCODER}blocks.*.norm2.*",
        **({} if names.mask is None else {names.mask: f"{TOKENIZER}mask_token"}),
        **({} if names.buckets is None else _gates(names, names.buckets)),
    }


def _gates(names: SpeechNames, buckets: str) -> Table:
    gate = f"{ENCODER}blocks.*.attn.gate"
    return {
        buckets: RELATIVE,
        f"{names.blocks}.{names.parts['gate']}.*": f"{gate}.linear.*",
        f"{names.blocks}.{names.parts['factor']}": f"{gate}.factor",
    }


def read_speech(state: State, names: SpeechNames, heads: Table, traits: SpeechTraits) -> Carried:
    """A speech encoder's weights as ours.

    Args:
        state: theirs, with any wrapper's prefix.
        names: of the encoder's parts.
        heads: of wav2vec 2.0's quantiser and projections; taken if all of them are there.
        traits: what goes with them.

    Raises:
        UserError: a part is missing, or the family has no names for WavLM's parts.
    """
    state = {_new_norm(name): tensor for name, tensor in state.items()}
    strange = [name for name in state if "gru_rel_pos" in name]
    if strange and names.buckets is None:
        raise UserError(f"WavLM ({strange[0]}) is read under the names of Hugging Face and fairseq alone")
    first = names.convolution.replace("*", "0", 1).replace("*", "weight")
    inside, outside = beneath(state, first)
    norm = "layer" if count(inside, names.norms["layer"]) > 2 else "group"
    pre_norm = norm == "layer" if traits.pre_norm is None else traits.pre_norm
    weights, rest = carry(inside, table_of(names, norm, pre_norm))
    objective = _objective(rest | outside, heads)
    taken = set(heads) if objective else set()
    known, unknown = aside({name: t for name, t in rest.items() if name not in taken}, names.aside)
    normalise = norm == "layer" if traits.normalise is None else traits.normalise
    return Carried(
        weights=weights | {OBJECTIVE + name: tensor for name, tensor in objective.items()},
        model=_model(weights, norm, pre_norm, traits) | {"objectives": _objectives(objective)},
        modality="audio",
        facts={"rate": traits.rate, "normalise": normalise},
        reading={"rate": traits.rate},
        aside=sorted([*(name for name in outside if name not in taken), *known]),
        unexpected=sorted(unknown),
    )


def write_speech(ours: State, model: nn.Module, names: SpeechNames, heads: Table) -> State:
    """Our weights as a family's; raises UserError where the family has no name for a part of this model."""
    tokenizer = _writable(model)
    weights = {name: t for name, t in ours.items() if not name.startswith(OBJECTIVE)}
    state, rest = restore(weights, table_of(names, tokenizer.frame_norm, not tokenizer.positions.norm))
    rest.pop(f"{TOKENIZER}prefix_tokens")
    rest.pop(f"{TOKENIZER}mask_token", None)
    if rest:
        raise UserError(f"the format must have a name for every weight, but has none for {min(rest)!r}")
    if names.old_norm:
        state = {_old_norm(name): tensor for name, tensor in state.items()}
    head = {name.removeprefix(OBJECTIVE): t for name, t in ours.items() if name.startswith(OBJECTIVE)}
    if head and heads:
        state |= restore(
            head | {"quantiser.codebook": head["quantiser.codebook"].flatten(0, 1)[None]}, heads
        )[0]
    return state


def _writable(model: nn.Module) -> WaveformFrames:
    """The front end of a model that computes what wav2vec 2.0's do; its norms tell where the blocks' are.

    Raises:
        UserError: a part is of another kind.
    """
    tokenizers, encoder = model.tokenizers, model.encoder
    assert isinstance(tokenizers, nn.ModuleDict) and isinstance(encoder, Encoder)
    if "audio" not in tokenizers:
        raise UserError(f"the format is of audio, but the model reads {', '.join(tokenizers)}")
    tokenizer, block = tokenizers["audio"], encoder.blocks[0]
    if isinstance(tokenizer, LogMelFrames):
        raise UserError("log-mel frames have no counterpart in these weights, whose frames are of a waveform")
    assert isinstance(tokenizer, WaveformFrames) and isinstance(block, Block)
    faults = {
        "prefix tokens": bool(tokenizer.prefix),
        "rotary positions": block.attn.rotary is not None,
        "other norms than layer norm": not isinstance(block.norm1, nn.LayerNorm),
        "another feed-forward than GELU's": type(block.mlp) is not Mlp,
        "queries, keys and values without bias": block.attn.qkv.bias is None,
        "norms at other places": block.norm_first
        in (isinstance(encoder.norm, nn.Identity), tokenizer.positions.norm),
    }
    if found := [fault for fault, there in faults.items() if there]:
        raise UserError(f"the format expects an encoder as wav2vec 2.0 has it, but this one has {found[0]}")
    return tokenizer


def _new_norm(name: str) -> str:
    """Weight norm's newer names for its older ones."""
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        name = name.replace(f".{old}", f".parametrizations.weight.{new}")
    return name


def _old_norm(name: str) -> str:
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        name = name.replace(f".parametrizations.weight.{new}", f".{old}")
    return name


def _objective(rest: State, heads: Table) -> State:
    """wav2vec 2.0's heads under our names, codebooks `(G, V, K / G)`; nothing unless all are there."""
    found, _ = carry({name: tensor for name, tensor in rest.items() if name in heads}, heads)
    if len(found) < len(heads) or not heads:
        return {}
    codebook = found["quantiser.codebook"]
    groups = found["project_target.weight"].shape[1] // codebook.shape[-1]
    return found | {"quantiser.codebook": codebook.reshape(groups, -1, codebook.shape[-1])}


def _objectives(heads: State) -> dict[str, Any]:
    """The objective that these heads are of."""
    if not heads:
        return {}
    groups, codes, width = heads["quantiser.codebook"].shape
    quantiser = {
        "class_path": "triptych.objectives.quantiser.GumbelQuantiser",
        "init_args": {"groups": groups, "codes": codes, "width": groups * width},
    }
    arguments = {"quantiser": quantiser, "width": len(heads["project_target.weight"])}
    path = "triptych.objectives.masked_contrastive.MaskedContrastive"
    return {"wav2vec2": {"class_path": path, "init_args": arguments}}


def _model(weights: State, norm: str, pre_norm: bool, traits: SpeechTraits) -> dict[str, Any]:
    """Tokenizer and encoder of a config for weights with these shapes."""
    depth = count(weights, f"{ENCODER}blocks.*.attn.qkv.weight")
    needed = (f"{TOKENIZER}project.weight", f"{POSITION}parametrizations.weight.original1")
    if not depth or any(name not in weights for name in needed):
        raise UserError("the weights must hold a front end, a positional convolution and blocks, but do not")
    position = weights[needed[1]]
    width, hidden = len(position), len(weights[f"{ENCODER}blocks.0.mlp.fc1.weight"])
    tokenizer = {
        "convolutions": _convolutions(weights, traits.strides),
        "norm": norm,
        "bias": f"{TOKENIZER}layers.0.conv.bias" in weights,
        "positions": {
            "kernel": position.shape[2],
            "groups": width // position.shape[1],
            "norm": not pre_norm,
        },
    }
    path = "triptych.tokenizers.audio_waveform.WaveformFrames"
    relative: dict[str, Any] = {}
    if RELATIVE in weights:
        relative = {"relative": {"buckets": len(weights[RELATIVE]), "distance": traits.distance}}
    return {
        "tokenizers": {"audio": {"class_path": path, "init_args": tokenizer}},
        "encoder": {
            "width": width,
            "depth": depth,
            "heads": heads_of(width, traits.heads),
            "mlp_ratio": ratio_of(width, hidden),
            "final_norm": pre_norm,
            "block": {"norm_first": pre_norm, "norm_eps": traits.eps, **relative},
        },
    }


def _convolutions(weights: State, strides: Sequence[int] | None) -> list[list[int]]:
    """(channels, kernel, stride) of each convolution; strides are nowhere in the weights.

    Raises:
        UserError: the stack is not wav2vec 2.0's and nothing says its strides.
    """
    names = [f"{TOKENIZER}layers.{index}.conv.weight" for index in range(len(weights))]
    stack: list[Tensor] = [weights[name] for name in names if name in weights]
    steps = STRIDES if strides is None else strides
    if len(steps) != len(stack):
        raise UserError(
            f"the strides of the {len(stack)} convolutions must be known, but there are {len(steps)}; "
            "import a folder with a config.json, or a model object"
        )
    return [[len(weight), weight.shape[2], step] for weight, step in zip(stack, steps, strict=True)]
