"""`triptych cluster`: k-means units of audio, for HuBERT."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...tokenizers.errors import UserError
from ...tokenizers.tokenizer import Tokenizer
from ...tokenizers.view import View
from ..run import Run, load, write_json
from .clips import Clips
from .clock import Clock
from .manifest import read_clips
from .segments import MODALITY
from .units import Features, Units, make_units, mfcc_features

#: Hz of the audio that MFCC are of, unless another is given.
MFCC_RATE = 16_000


def layer_features(run: Run, layer: int) -> tuple[Features, Clock]:
    """Tokens of a layer of a run (1 to depth, -1 the end), by the branch that it is evaluated with.

    Raises:
        UserError: the run does not read audio.
    """
    assert run.model.spec is not None
    if MODALITY not in run.model.spec.data:
        raise UserError(f"expected a run trained on audio, but {str(run.directory)!r} is of another modality")
    rate = run.model.spec.data[MODALITY]["rate"]
    tokenizer = run.model.tokenizers[MODALITY]
    assert isinstance(tokenizer, Tokenizer)

    @torch.no_grad()
    def features(waveform: Tensor) -> Tensor:
        return run.model.embed(View(MODALITY, [waveform], rate=rate), layer).content().values

    return features, Clock.of(tokenizer, rate)


def cluster_command(
    paths: Sequence[str],
    run: str | None = None,
    features: str | None = None,
    layer: int | None = None,
    clusters: int = 100,
    rate: int | None = None,
    output: str = "units.parquet",
    json: str | None = None,
) -> None:
    """Cluster the frames of audio and write the units of every clip.

    Raises:
        UserError: neither a run nor `mfcc` is given, or both, or an option that belongs to the other.
    """
    from rich.console import Console

    if (run is None) == (features is None):
        raise UserError("`triptych cluster` needs either --run RUN (and a --layer) or --features mfcc")
    if run is None and layer is not None:
        raise UserError(f"--layer is of a --run, and MFCC have none, but got --layer {layer}")
    if run is not None and rate is not None:
        raise UserError(f"--rate is of --features mfcc, and a run has its own, but got --rate {rate}")
    normalise = False
    if run is None:
        found, clock = mfcc_features(rate or MFCC_RATE)
    else:
        loaded = load(run)
        found, clock = layer_features(loaded, -1 if layer is None else layer)
        assert loaded.model.spec is not None
        normalise = bool(loaded.model.spec.data[MODALITY].get("normalise"))
    clips = Clips(
        read_clips(list(paths)), clock.rate, lambda samples: samples >= clock.window, 30.0, normalise
    )
    units = make_units(clips, range(len(clips)), found, clock, clusters)
    units.write(Path(output))
    figures = described(units)
    Console(soft_wrap=True).print(
        f"{figures['frames']} units of {figures['step']:g} s in {output}: "
        f"{figures['used']} of {clusters} in use, perplexity {figures['perplexity']:.1f}",
        highlight=False,
    )
    if json is not None:
        write_json(Path(json), figures)


def described(units: Units) -> dict[str, Any]:
    """Frames, seconds of a frame, and how evenly the units are used."""
    every = np.concatenate([row for _, rows in units.of_file.values() for row in rows])
    share = np.bincount(every, minlength=units.count) / len(every)
    used = share[share > 0]
    return {
        "frames": len(every),
        "step": units.clock.hop / units.clock.rate,
        "used": len(used),
        "perplexity": float(np.exp(-(used * np.log(used)).sum())),
    }
