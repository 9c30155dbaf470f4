"""Frozen evaluation: heads trained together, the choice of reading and rate, intervals, and the tables."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from triptych.tasks.build import build_data, build_model
from triptych.tasks.config import merge
from triptych.tasks.evaluate import knn, linear
from triptych.tasks.evaluation.heads import MOMENTUM, Heads, Recipe, train_heads
from triptych.tasks.evaluation.intervals import interval, wilson
from triptych.tasks.evaluation.sweep import Parts, Sample, sweep
from triptych.tasks.features import Reading, read, read_features
from triptych.tasks.fit import run_stage
from triptych.tasks.run import load, save
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.tokens import concat
from triptych.tokenizers.view import View

CLASSES = 3


def blobs(samples: int, width: int, seed: int = 0, noise: float = 0.3) -> tuple[Tensor, Tensor]:
    """Points around three centres, and which."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(99))
    label = torch.arange(samples) % CLASSES
    return centres[label] + noise * torch.randn(samples, width, generator=random), label


def npz(folder: Path, seed: int = 0, classes: int = CLASSES, size: int = 8) -> str:
    """90 small images whose brightness is their class, beside noise."""
    random = np.random.default_rng(seed)
    label = np.arange(90) % classes
    x = (random.random((90, size, size)) * 0.3 + label[:, None, None] * 0.7 / classes).astype("float32")
    x = x.clip(0, 1)
    path = folder / f"{seed}.npz"
    np.savez(
        path,
        **{"train_x": x[:50], "train_y": label[:50], "val_x": x[50:65], "val_y": label[50:65]},
        **{"test_x": x[65:], "test_y": label[65:]},
    )
    return str(path)


def untrained(config: str, folder: Path, data: str) -> str:
    """A run directory of a model that was never trained."""
    folder.mkdir(parents=True, exist_ok=True)
    merged = merge([config], {"data.path": data})
    module, model = build_data(merged), build_model(merged.values["model"])
    module.setup("fit")
    model.build(module.views(), module.facts())
    (folder / "config.yaml").write_text(merged.yaml())
    save(model, merged.values, folder)
    return str(folder)


def one_head(x: Tensor, label: Tensor, weights: list[Tensor], rate: float, steps: int) -> nn.Sequential:
    """The naive twin: one head, torch's own SGD and cosine, whole batches."""
    scaled = (x - x.mean(0)) / x.std(0, correction=0)
    layers: list[nn.Module] = []
    for index, weight in enumerate(weights):
        linear = nn.Linear(*weight.shape)
        linear.weight.data, linear.bias.data = weight.T.clone(), torch.zeros(weight.shape[1])
        layers += [nn.Tanh(), linear] if index else [linear]
    net = nn.Sequential(*layers)
    optimiser = torch.optim.SGD(net.parameters(), lr=rate, momentum=MOMENTUM)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(scaled), label).backward()
        optimiser.step()
        cosine.step()
    return net


@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_heads_trained_together_equal_heads_trained_alone(kind: str) -> None:
    x, label = blobs(17, 5)
    recipe = Recipe(kind, epochs=7, batch=17, rates=(0.001, 0.03, 0.7))  # type: ignore[arg-type]
    probe = train_heads([x], label, recipe, CLASSES, seed=3)
    with torch.random.fork_rng():
        from triptych.tasks.data import seeded

        with seeded(3, "heads"):
            fresh = Heads(x, CLASSES, kind, 1)  # type: ignore[arg-type]
    first = [weight[0].detach() for weight in fresh.weights]
    scaled = (x - x.mean(0)) / x.std(0, correction=0)
    for index, rate in enumerate(recipe.rates):
        alone = one_head(x, label, first, rate, steps=7)
        torch.testing.assert_close(probe.logits([x])[index], alone(scaled).detach(), rtol=1e-4, atol=1e-5)


def test_a_head_that_runs_away_leaves_the_others_alone() -> None:
    x, label = blobs(17, 5)
    tame = train_heads([x], label, Recipe(epochs=5, batch=17, rates=(0.1,)), CLASSES)
    both = train_heads([x], label, Recipe(epochs=5, batch=17, rates=(0.1, float("inf"))), CLASSES)
    torch.testing.assert_close(both.logits([x])[0], tame.logits([x])[0])
    assert not both.logits([x])[1].isfinite().all()


def parts(name: str, widths: tuple[int, ...], noise: float) -> Parts:
    def samples(count: int, seed: int) -> tuple[Sample, ...]:
        return tuple(Sample(*blobs(count, width, seed + width, noise)) for width in widths)

    return Parts(name, (samples(41, 0), samples(23, 1), samples(29, 2)))


def test_the_better_reading_and_rate_are_chosen_without_the_test_part() -> None:
    good, bad = parts("good", (7,), 0.3), parts("bad", (7,), 30.0)
    recipe = Recipe(epochs=20, rates=(1e-6, 0.1))
    named, told = sweep([bad, good], recipe, seeds=2)
    train, val, test = good.splits
    assert named.shape == (2, 29) and told == "good, lr 0.1"
    assert (named == test[0].label).float().mean() > 0.9
    lie = Parts("good", (train, val, (Sample(test[0].x, (test[0].label + 1) % CLASSES),)))
    same, told = sweep([bad, lie], recipe, seeds=2)
    assert told == "good, lr 0.1" and torch.equal(same, named)


def test_two_tokens_have_a_head_each_and_vote_by_the_mean_of_logits() -> None:
    two = parts("rotation,contrastive", (5, 7), 0.3)
    recipe = Recipe(epochs=3, batch=41, rates=(0.05,))
    train = two.splits[0]
    probe = train_heads([s.x for s in train], train[0].label, recipe, CLASSES)
    logits = [heads(s.x) for heads, s in zip(probe.parts, train, strict=True)]
    torch.testing.assert_close(probe.logits([s.x for s in train]), (logits[0] + logits[1]) / 2)
    # the first part's weights come first from the seed and its loss is its own: alone it learns the same
    alone = train_heads([train[0].x], train[0].label, recipe, CLASSES)
    torch.testing.assert_close(alone.logits([train[0].x]), logits[0])


@pytest.mark.parametrize(("correct", "total", "low", "high"), [(0, 10, 0.0, 0.2775), (8, 10, 0.4902, 0.9433)])
def test_wilson(correct: int, total: int, low: float, high: float) -> None:
    assert wilson(correct, total) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_counts_the_test_set_and_the_seeds() -> None:
    right = torch.zeros(3, 100, dtype=torch.bool)
    right[0, :80] = right[1, :80] = right[2, :80] = True
    assert interval(right) == pytest.approx(wilson(80, 100))  # seeds agree: the test set alone
    right[0, 70:80], right[2, 80:90] = False, True
    low, high = wilson(80, 100)
    spread = 4.302653 * 0.1 / 3**0.5  # Student, 2 degrees of freedom, deviation .1
    expected = (0.8 - ((0.8 - low) ** 2 + spread**2) ** 0.5, 1.0)
    assert interval(right) == pytest.approx(expected, abs=1e-6)
    assert 0.8 + ((high - 0.8) ** 2 + spread**2) ** 0.5 > 1
    assert interval(right[:1]) == pytest.approx(wilson(70, 100))


def test_readings_of_the_last_blocks(tmp_path: Path) -> None:
    model = load(untrained("vision/dino", tmp_path / "run", npz(tmp_path))).model
    view = View("image", torch.randn(5, 1, 8, 8))
    ways = [Reading(), Reading("class+mean", blocks=3), Reading("mean", blocks=2), Reading("mean", layer=2)]
    auto, wide, means, second = read(model, view, ways)
    tokenizers, encoder = model.branch("teacher")
    layers = encoder(concat([tokenizers["image"](view)]), (1, 2, 3)).layers
    normed = {i: encoder.norm(layers[i][0].values).view(5, 17, 48) for i in (1, 2, 3)}
    torch.testing.assert_close(auto, normed[3][:, 0])
    expected = [normed[3][:, 0], normed[3][:, 1:].mean(1), normed[2][:, 0], normed[1][:, 0]]
    torch.testing.assert_close(wide, torch.cat(expected, dim=1))
    torch.testing.assert_close(means, torch.cat([normed[3][:, 1:].mean(1), normed[2][:, 1:].mean(1)], dim=1))
    torch.testing.assert_close(second, layers[2][0].values.view(5, 17, 48)[:, 1:].mean(1))
    with pytest.raises(UserError, match="pool must be of class, mean, but 'rotation' is asked for"):
        read(model, view, [Reading("class+rotation")])
    with pytest.raises(UserError, match="at most the encoder's depth 3, but is 4"):
        read(model, view, [Reading(blocks=4)])
    with pytest.raises(UserError, match="this part of the data has none"):
        read_features(model, [], [Reading()])


def test_linear_and_knn_stand_beside_untrained_raw_and_scratch(tmp_path: Path, capsys) -> None:
    data = npz(tmp_path)
    run = untrained("vision/dino", tmp_path / "dino", data)
    scratch = untrained("vision/vit", tmp_path / "vit", data)
    (tmp_path / "vit" / "metrics.json").write_text('{"fit": {"seconds": 12.3}}')
    rows = linear(run, {}, epochs=5, seeds=2, beside=scratch, json=str(tmp_path / "out.json"))
    names = ["this run", "untrained encoder", f"from scratch: {scratch} (12 s)", "raw input", "largest class"]
    assert [row.system for row in rows] == names
    assert all(0 <= row.low <= row.value <= row.high <= 1 for row in rows)  # type: ignore[operator]
    assert rows[3].value > 0.5  # brightness is the class
    assert rows[4].value == pytest.approx(8 / 25, abs=0.05)
    written = json.loads((tmp_path / "out.json").read_text())["linear probe accuracy"]
    assert [row["value"] for row in written] == [row.value for row in rows]
    assert knn(run, {}, beside=scratch)[0].metric == "kNN accuracy (k=20, T=0.07)"
    told = " ".join(capsys.readouterr().out.split())
    assert "50 samples to train, 15 to choose, 25 to test, 3 classes this run: class" in told


def test_domain_transfer_probes_other_data_and_says_so(tmp_path: Path, capsys) -> None:
    own, other = npz(tmp_path), npz(tmp_path, seed=1, classes=5, size=12)
    run = untrained("vision/dino", tmp_path / "run", own)
    rows = linear(run, {"data.path": other}, head="nonlinear", pool="class,mean", blocks=1, epochs=5, seeds=1)
    told = " ".join(capsys.readouterr().out.split())
    assert f"Trained on {own}, evaluated on {other}: 50 samples" in told and "5 classes" in told
    assert rows[0].metric == "non-linear probe accuracy" and rows[-1].value == pytest.approx(0.2, abs=0.05)
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert list(kept) == [f"non-linear probe accuracy, on {other}"]


def test_an_evaluation_by_classes_needs_labels(tmp_path: Path) -> None:
    run = untrained("vision/dino", tmp_path / "run", npz(tmp_path))
    np.savez(tmp_path / "bare.npz", train_x=np.zeros((30, 8, 8)), test_x=np.zeros((5, 8, 8)))
    with pytest.raises(UserError, match="needs labels, but the train part has none"):
        knn(run, {"data.path": str(tmp_path / "bare.npz")})


def test_predictions_are_of_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, output = untrained("vision/vit", tmp_path / "run", npz(tmp_path)), tmp_path / "new" / "told.csv"
    np.savez(tmp_path / "bare.npz", train_x=np.random.default_rng(0).random((31, 8, 8)))
    for data, counts in (("0.npz", (50, 15, 25)), ("bare.npz", None)):
        run_stage("predict", run, {"data.path": str(tmp_path / data)}, str(output))
        told = pd.read_csv(output)
        found = told["split"].value_counts()
        assert list(told.columns) == ["split", "name", "class", "probability"]
        assert len(told) == (31 if counts is None else sum(counts))
        if counts is not None:
            assert tuple(found[split] for split in ("train", "val", "test")) == counts
        assert told["name"].is_unique or counts is not None
    module = load(run).data({"data.path": str(tmp_path / "0.npz")})
    logits = torch.cat([load(run).model.predict(batch["plain"]) for batch in module.plain("test")])
    run_stage("predict", run, {}, str(output))
    told = pd.read_csv(output)
    classes = told.loc[told["split"] == "test", "class"].tolist()
    assert classes == logits.argmax(1).tolist()
    assert "90 predictions in" in capsys.readouterr().out
