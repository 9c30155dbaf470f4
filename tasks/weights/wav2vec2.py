"""wav2vec 2.0, HuBERT, XLS-R and WavLM under the names of Hugging Face, torchaudio and fairseq.

Base models norm the first convolution over time and their blocks last, large ones (and XLS-R) norm every
convolution over channels and their blocks first. Weight norm is read under both generations of names.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...tokenizers.errors import UserError
from .activations import check_gelu
from .family import Carried, Family, Source
from .names import Table
from .speech import SpeechNames, SpeechTraits, read_speech, write_speech
from .speech_config import huggingface_files

PARTS = {
    **{part: f"attention.{part}_proj" for part in ("q", "k", "v", "out")},
    "norm1": "layer_norm",
    "fc1": "feed_forward.intermediate_dense",
    "fc2": "feed_forward.output_dense",
    "norm2": "final_layer_norm",
}
NORM = "feature_extractor.conv_layers.*.layer_norm.*"
HUGGING_FACE = SpeechNames(
    convolution="feature_extractor.conv_layers.*.conv.*",
    norms={"group": NORM, "layer": NORM},
    features="feature_projection.layer_norm",
    project="feature_projection.projection",
    position="encoder.pos_conv_embed.conv",
    blocks="encoder.layers.*",
    parts=PARTS | {"gate": "attention.gru_rel_pos_linear", "factor": "attention.gru_rel_pos_const"},
    last="encoder.layer_norm",
    mask="masked_spec_embed",
    buckets="encoder.layers.0.attention.rel_attn_embed.weight",
)
TORCHAUDIO = SpeechNames(
    convolution="feature_extractor.conv_layers.*.conv.*",
    norms={"group": NORM, "layer": NORM},
    features="encoder.feature_projection.layer_norm",
    project="encoder.feature_projection.projection",
    position="encoder.transformer.pos_conv_embed.conv",
    blocks="encoder.transformer.layers.*",
    parts=PARTS,
    last="encoder.transformer.layer_norm",
    mask=None,
    aside=("aux.",),
)
FAIRSEQ = SpeechNames(
    convolution="feature_extractor.conv_layers.*.0.*",
    norms={
        "group": "feature_extractor.conv_layers.*.2.*",
        "layer": "feature_extractor.conv_layers.*.2.1.*",
    },
    features="layer_norm",
    project="post_extract_proj",
    position="encoder.pos_conv.0",
    blocks="encoder.layers.*",
    parts={
        **{part: f"self_attn.{part}_proj" for part in ("q", "k", "v", "out")},
        "norm1": "self_attn_layer_norm",
        "fc1": "fc1",
        "fc2": "fc2",
        "norm2": "final_layer_norm",
        "gate": "self_attn.grep_linear",
        "factor": "self_attn.grep_a",
    },
    last="encoder.layer_norm",
    mask="mask_emb",
    buckets="encoder.layers.0.self_attn.relative_attention_bias.weight",
    old_norm=True,
    aside=("quantizer.", "project_q.", "final_proj.", "label_embs_concat", "target_glu."),
)
_HEADS = {"quantiser.logits": "quantizer.weight_proj", "project_target": "project_q"}
HUGGING_FACE_HEADS: Table = {
    "quantizer.codevectors": "quantiser.codebook",
    **{
        f"{theirs}.{kind}": f"{ours}.{kind}" for ours, theirs in _HEADS.items() for kind in ("weight", "bias")
    },
    **{f"project_hid.{kind}": f"project_context.{kind}" for kind in ("weight", "bias")},
}
FAIRSEQ_HEADS: Table = {
    "quantizer.vars": "quantiser.codebook",
    **{
        f"{theirs}.{kind}": f"{ours}.{kind}" for ours, theirs in _HEADS.items() for kind in ("weight", "bias")
    },
    **{f"final_proj.{kind}": f"project_context.{kind}" for kind in ("weight", "bias")},
}


def read(source: Source, names: SpeechNames, heads: Table) -> Carried:
    """A family's weights as ours, with what `config.json`, a preprocessor or a model object say.

    Raises:
        UserError: the config asks for what is no part here, or a weight is missing.
    """
    config = source.config
    check_gelu(config, "hidden_act", "feat_extract_activation")
    if not config.get("feat_proj_layer_norm", True):
        raise UserError(
            "the weights must have a norm of the features, but their feat_proj_layer_norm is false"
        )
    traits = SpeechTraits(
        heads=config.get("heads") or config.get("num_attention_heads"),
        strides=config.get("conv_stride"),
        pre_norm=config.get("do_stable_layer_norm"),
        normalise=source.preprocessor.get("do_normalize"),
        rate=source.preprocessor.get("sampling_rate", 16_000),
        eps=config.get("layer_norm_eps", 1e-5),
        distance=config.get("max_bucket_distance", 800),
    )
    return read_speech(source.state, names, heads, traits)


def has(source: Source, ending: str) -> bool:
    """Whether a name ends so."""
    return any(f".{name}".endswith(f".{ending}") for name in source.state)


def _family(name: str, known_by: str, names: SpeechNames, heads: Table) -> Family:
    return Family(
        name,
        lambda source: has(source, known_by),
        partial(read, names=names, heads=heads),
        partial(write_speech, names=names, heads=heads),
    )


FAMILIES = (
    _family("torchaudio", "encoder.feature_projection.projection.weight", TORCHAUDIO, {}),
    replace(
        _family("hf-speech", "feature_projection.projection.weight", HUGGING_FACE, HUGGING_FACE_HEADS),
        files=huggingface_files,
    ),
    _family("fairseq", "post_extract_proj.weight", FAIRSEQ, FAIRSEQ_HEADS),
)
