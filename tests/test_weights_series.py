"""Hugging Face's PatchTST in and out: encoder, forecasts and reconstructions.

Shapes: n series, C channels, T steps, L windows, P steps of a window, D width, H horizon.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from triptych.cli import main
from triptych.tasks.model import Model
from triptych.tasks.weights.family import Source
from triptych.tasks.weights.port import branch, built
from triptych.tasks.weights.registry import recognise
from triptych.tasks.weights.source import open_source
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import View

from .helpers import randomise

CONTEXT, CHANNELS, HORIZON = 37, 3, 5


def original(kind: str, **changes: Any) -> nn.Module:
    """8 windows of 7 steps every 4, the latest at the end; batch norms that have seen something."""
    import transformers

    config = transformers.PatchTSTConfig(
        num_input_channels=CHANNELS, context_length=CONTEXT, patch_length=7, patch_stride=4, d_model=12,
        num_attention_heads=2, num_hidden_layers=2, ffn_dim=20, prediction_length=HORIZON, loss="mse",
        mask_type="random", random_mask_ratio=0.4, **changes,
    )  # fmt: skip
    model = getattr(transformers, kind)(config)
    randomise(model, 12**-0.5)
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    return model.eval()


VARIANTS: dict[str, dict[str, Any]] = {
    "as configured by default": {},
    "post-norm": {"pre_norm": False},
    "layer norm": {"norm_type": "layernorm"},
    "class token": {"use_cls_token": True},
    "learnt positions": {"positional_encoding_type": "random"},
}
each_variant = pytest.mark.parametrize("name", VARIANTS)


def imported(theirs: nn.Module) -> tuple[Source, Model]:
    source = open_source(theirs)
    carried = recognise(source).read(source)
    assert carried.unexpected == []
    model, missing = built(carried)
    assert not [name for name in missing if "num_batches" not in name]
    return source, model


def view(series: Tensor, **masks: Tensor) -> View:
    """Theirs are `(n, T, C)`, ours `(n, C, T)`."""
    return View("series", series.transpose(1, 2), **masks)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 0.1  # parity of nothing is no parity
    assert (found - expected).abs().max() < 1e-4 * max(1.0, float(expected.abs().max()))


@torch.no_grad()
@each_variant
@pytest.mark.parametrize("scale", [1.0, 1e-2])
def test_encoders_are_equal(name: str, scale: float) -> None:
    """Also for series so small that what is added to their variance counts."""
    theirs = original("PatchTSTModel", **VARIANTS[name])
    _, model = imported(theirs)
    series = scale * torch.randn(2, CONTEXT, CHANNELS)
    found = model.embed(view(series)).values.unflatten(0, (2, CHANNELS, -1))
    assert_close(found, theirs(series).last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", None])
def test_forecasts_are_equal(pooling: str | None) -> None:
    theirs = original("PatchTSTForPrediction", pooling_type=pooling)
    _, model = imported(theirs)
    series = 3 + 2 * torch.randn(2, CONTEXT, CHANNELS).cumsum(1)
    found = model.predict(view(series))[..., 0].transpose(1, 2)
    assert_close(found, theirs(series).prediction_outputs)


@torch.no_grad()
def test_reconstructions_of_masked_windows_are_equal() -> None:
    theirs = original("PatchTSTForPretraining")
    _, model = imported(theirs)
    series = torch.randn(2, CONTEXT, CHANNELS)
    theirs.config.output_hidden_states = False
    mask = theirs.model(series).mask.bool()  # drawn anew each time
    seeded = torch.Generator().manual_seed(0)
    mask = torch.rand(mask.shape, generator=seeded) < 0.4
    theirs.model.masking = Fixed(mask)
    expected = theirs(series).prediction_output
    tokens = model.embed(view(series, masked=mask.flatten()))
    found = model.objective["reconstruction"].reconstruct(tokens).values
    assert_close(found, expected.flatten(0, 2))


class Fixed(nn.Module):
    """Theirs, with a mask that is given."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        return patches.masked_fill(self.mask.unsqueeze(-1), 0.0), self.mask


@torch.no_grad()
@each_variant
@pytest.mark.parametrize("kind", ["PatchTSTForPrediction", "PatchTSTForPretraining"])
def test_what_is_exported_comes_back_bit_for_bit_and_loads_in_transformers(name: str, kind: str) -> None:
    pooling = {"pooling_type": None} if kind == "PatchTSTForPrediction" else {}
    theirs = original(kind, **VARIANTS[name] | pooling)
    source, model = imported(theirs)
    weights, write = branch(model), recognise(source).write
    state = write(weights, model)
    again, _ = built(recognise(source).read(Source("", state, source.config)))
    back = branch(again)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[n], weights[n]) for n in back)
    series = torch.randn(2, CONTEXT, CHANNELS)
    if kind == "PatchTSTForPrediction" and "use_cls_token" not in VARIANTS[name]:
        expected = theirs(series).prediction_outputs
        randomise(theirs)
        theirs.load_state_dict(state)
        assert_close(theirs(series).prediction_outputs, expected)


def test_what_has_no_part_here_is_refused() -> None:
    for changes in ({"channel_attention": True}, {"share_embedding": False}, {"scaling": "mean"}):
        source = open_source(original("PatchTSTModel", **changes))
        with pytest.raises(UserError, match=r"PatchTST with .* has no part here"):
            recognise(source).read(source)
    source = open_source(original("PatchTSTModel", activation_function="relu"))
    with pytest.raises(UserError, match="with activation_function gelu, but theirs is 'relu'"):
        recognise(source).read(source)


def test_a_folder_forecasts_a_table(tmp_path: Path) -> None:
    """From Hugging Face's files to a forecast of the user's own table, the same numbers as there."""
    theirs = original("PatchTSTForPrediction")
    theirs.save_pretrained(tmp_path / "hub")
    assert main(["weights", "import", str(tmp_path / "hub"), "--output", str(tmp_path / "run")]) == 0
    rows = np.random.default_rng(0).normal(size=(CONTEXT + 9, CHANNELS)).cumsum(0).astype("float32")
    stamps = pd.date_range("2026-01-01", periods=len(rows), freq="h")
    table = pd.DataFrame(rows, columns=["a", "b", "c"]).assign(ds=stamps)
    table.to_csv(tmp_path / "table.csv", index=False)
    command = ["forecast", "--run", str(tmp_path / "run"), "--data.path", str(tmp_path / "table.csv")]
    assert main([*command, "--output", str(tmp_path / "forecast.csv")]) == 0
    forecast = pd.read_csv(tmp_path / "forecast.csv").pivot(index="ds", columns="unique_id", values="median")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(rows[-CONTEXT:])[None]).prediction_outputs[0]
    assert_close(torch.tensor(forecast.to_numpy(), dtype=torch.float32), expected)
