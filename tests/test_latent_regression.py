"""data2vec against a naive twin: targets of a teacher that hears everything, one channel at a time."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from triptych.backbones.encoder import BlockOptions, Encoder
from triptych.backbones.layout import Layout
from triptych.backbones.teacher import Teacher
from triptych.objectives.latent_regression import LatentRegression, regression, targets
from triptych.tasks.evaluation.judge import GRACE, judge
from triptych.tasks.model import Model
from triptych.tokenizers.audio import Positions
from triptych.tokenizers.audio_waveform import WaveformFrames
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import View

from .helpers import random_tokens

RATE, WIDTH, DEPTH, TOP = 1000, 8, 3, 2
LENGTHS = (301, 170, 231)


def model(norm_first: bool = True, norm: str = "group", **options: object) -> Model:
    tokenizer = WaveformFrames([(6, 20, 10), (6, 2, 2)], norm=norm, positions=Positions(3, 1))
    encoder = Encoder(WIDTH, DEPTH, 2, block=BlockOptions(norm_first=norm_first))
    objective = LatentRegression(**{"layers": TOP, **options})
    built = Model(
        {"audio": tokenizer}, encoder, {"data2vec": objective}, teacher=Teacher(0.9, tokenizers="shared")
    )
    built.build({"train": "audio"}, {"audio": {"rate": RATE}})
    with torch.no_grad():  # a teacher that is not the student
        for parameter in built.teacher.encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


def view(built: Model) -> View:
    draw = torch.Generator().manual_seed(3)
    frames = sum(built.tokenizers["audio"].num_tokens((length,)) for length in LENGTHS)
    waves = [torch.randn(length, generator=draw) for length in LENGTHS]
    return View("audio", waves, masked=torch.rand(frames, generator=draw) < 0.5)


def alone(built: Model, whole: View) -> list[View]:
    frames = [built.tokenizers["audio"].num_tokens(wave.shape) for wave in whole.data]
    return [
        replace(whole, data=[wave], masked=mask)
        for wave, mask in zip(whole.data, whole.masked.split(frames), strict=True)
    ]


def naive_target(built: Model, wave: Tensor) -> Tensor:
    """Mean over the top blocks of the teacher of `(x_td - mean_d) / sqrt(var_d + eps)`, for one clip."""
    tokens = built.tokenizers["audio"](View("audio", [wave]))  # the student's own front end
    x, layers = tokens.values, []
    for block in built.teacher.encoder.blocks:
        x = block(x, Layout((len(x),)), tokens.position)
        layers.append(x)
    normed = []
    for layer in layers[-TOP:]:
        columns = []
        for channel in layer.T:
            spread = channel - channel.sum() / len(channel)
            columns.append(spread / (spread.square().sum() / len(channel) + 1e-5).sqrt())
        normed.append(torch.stack(columns, dim=1))
    return sum(normed) / TOP


@pytest.mark.parametrize("norm_first", [True, False], ids=["pre-norm", "post-norm"])
def test_it_is_its_formula_with_gradients(norm_first: bool) -> None:
    built = model(norm_first)
    whole = view(built)
    loss = built({"train": whole})
    student, *teacher = built.objective["data2vec"].reads()
    assert [(read.branch, read.layer) for read in teacher] == [("teacher", 2), ("teacher", 3)]
    tokens = built.encode({"train": whole}, [student])[student]
    wanted = torch.cat([naive_target(built, wave) for wave in whole.data]).detach()
    total, frames = torch.zeros(()), 0
    for frame in whole.masked.nonzero().flatten().tolist():
        told = built.objective["data2vec"].head(tokens.values[frame])
        total, frames = total + (told - wanted[frame]).square().sum() / WIDTH**0.5, frames + 1
    term = loss.terms["data2vec/regression"]
    torch.testing.assert_close(term.sum, total, atol=1e-4, rtol=1e-4)
    assert term.count == frames == built.objective.counts({"train": whole})["data2vec/regression"]
    parameters = [p for p in built.parameters() if p.requires_grad]
    ours = torch.autograd.grad(term.sum, parameters, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(total, parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("kind", ["instance", "layer"])
def test_packed_is_one_by_one(norm: str, kind: str) -> None:
    built = model(norm=norm, norm_first=True).double()
    built.objective["data2vec"].norm = kind
    whole = view(built)
    whole = replace(whole, data=[wave.double() for wave in whole.data])
    parameters = [p for p in built.parameters() if p.requires_grad]
    sums = [built({"train": one}).terms["data2vec/regression"].sum for one in (whole, *alone(built, whole))]
    apart_sum = torch.stack(sums[1:]).sum()
    torch.testing.assert_close(sums[0], apart_sum)
    together = torch.autograd.grad(sums[0], parameters, allow_unused=True)
    apart = torch.autograd.grad(apart_sum, parameters, allow_unused=True)
    for one, other in zip(together, apart, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other)


def test_smooth_l1_is_equation_2_of_the_paper() -> None:
    told, wanted = torch.tensor([[0.0, 3.0, -1.0, 0.5]]), torch.zeros(1, 4)
    expected = (0.0 + (3 - 1.0) + 1 / 4 + 0.25 / 4) / 2  # beta 2: d^2 / 4 below it, |d| - 1 above
    assert regression(told, wanted, 2.0).item() == pytest.approx(expected)
    assert regression(told, wanted, 0.0).item() == pytest.approx((9 + 1 + 0.25) / 2)


def test_targets_in_closed_form() -> None:
    """A layer of two values a channel is normed to -1 and 1; a constant one to 0; of one token, to 0."""
    tokens = random_tokens([2, 1], 3)
    low_high = tokens.with_values(torch.tensor([[1.0, 5, 7], [3, 1, 7], [4, 4, 4]]))
    expected = torch.tensor([[-1.0, 1, 0], [1, -1, 0], [0, 0, 0]])
    torch.testing.assert_close(targets([low_high], "instance"), expected, atol=1e-4, rtol=0)
    turned = low_high.with_values(-low_high.values)
    torch.testing.assert_close(targets([low_high, turned], "instance"), torch.zeros(3, 3))


def test_the_teacher_hears_everything_and_shares_the_front_end_alone() -> None:
    built = model()
    whole = view(built)
    masks = [whole.masked, ~whole.masked]
    reads = built.objective["data2vec"].reads()[1:]
    one, other = (built.encode({"train": replace(whole, masked=mask)}, reads) for mask in masks)
    assert all(torch.equal(one[read].values, other[read].values) for read in reads)
    before = built.teacher.encoder.blocks[0].attn.qkv.weight.clone()
    with torch.no_grad():
        for parameter in (*built.tokenizers.parameters(), *built.encoder.parameters()):
            parameter.normal_()
    built.update_teacher(0.5)
    student, average = built.tokenizers.state_dict(), built.teacher.tokenizers.state_dict()
    assert all(torch.equal(student[name], average[name]) for name in student)
    qkv = built.encoder.blocks[0].attn.qkv.weight
    torch.testing.assert_close(built.teacher.encoder.blocks[0].attn.qkv.weight, 0.9 * before + 0.1 * qkv)


def test_the_loss_falls_and_more_of_the_targets_is_explained() -> None:
    built = model()
    whole = view(built)
    optimiser = torch.optim.AdamW([p for p in built.parameters() if p.requires_grad], 0.01)
    figures = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = built({"train": whole})
        loss.total.backward()
        optimiser.step()
        built.update_teacher(0.0)
        figures.append({name.rpartition("/")[2]: float(value) for name, value in loss.metrics.items()})
    assert figures[0]["explained"] < 0.1 < 0.4 < figures[-1]["explained"] < 1
    assert 1 / TOP * 0.5 < figures[-1]["target_variance"] <= 1.3
    assert judge([(e, {f"train/data2vec/{k}": v for k, v in f.items()}) for e, f in enumerate(figures)]) == []


def test_a_run_made_to_collapse_is_told_of() -> None:
    """Blocks whose outputs are driven out by a bias say the same at every frame, to a float's precision."""
    built = model(norm_first=False)
    with torch.no_grad():
        for block in (*built.teacher.encoder.blocks, *built.encoder.blocks):
            block.norm2.weight.zero_()
    figures = {f"train/{k}": float(v) for k, v in built({"train": view(built)}).metrics.items()}
    names = [finding.name for finding in judge([(epoch, figures) for epoch in range(GRACE + 3)])]
    assert names == ["targets collapsed"] and figures["train/data2vec/target_variance"] < 1e-6


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UserError, match="must lie between 1 and the encoder's depth 3, but are 8"):
        model(layers=8)
    built = model()
    with pytest.raises(UserError, match="needs a mask, but the view 'train' has none"):
        built({"train": replace(view(built), masked=None)})
