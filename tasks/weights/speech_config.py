"""What goes beside exported speech weights: Hugging Face's files of what the tensors do not say."""

from __future__ import annotations

from typing import Any

from torch import nn

from ...backbones.encoder import Block
from ...backbones.layers import Mlp
from ...tokenizers.audio_waveform import WaveformFrames
from ..model import Model


def huggingface_files(model: nn.Module) -> dict[str, dict[str, Any]]:
    """`config.json` and `preprocessor_config.json` of a model that `write_speech` has written."""
    assert isinstance(model, Model) and model.spec is not None
    tokenizer, encoder, facts = model.tokenizers["audio"], model.encoder, model.spec.data["audio"]
    block = encoder.blocks[0]
    assert isinstance(tokenizer, WaveformFrames) and isinstance(block, Block) and isinstance(block.mlp, Mlp)
    channels, kernels, strides = (list(column) for column in zip(*tokenizer.convolutions, strict=True))
    config = {
        "model_type": "wav2vec2",
        "conv_dim": channels,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "conv_bias": tokenizer.bias,
        "feat_extract_norm": tokenizer.frame_norm,
        "feat_extract_activation": "gelu",
        "num_conv_pos_embeddings": tokenizer.positions.kernel,
        "num_conv_pos_embedding_groups": tokenizer.positions.groups,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "layer_norm_eps": block.norm1.eps,
        "do_stable_layer_norm": block.norm_first,
    }
    if encoder.relative is not None:
        relative = encoder.relative.relative
        config |= {
            "model_type": "wavlm",
            "num_buckets": relative.buckets,
            "max_bucket_distance": relative.distance,
        }
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "sampling_rate": facts["rate"],
        "do_normalize": bool(facts.get("normalise")),
    }
    return {"config.json": config, "preprocessor_config.json": preprocessor}
