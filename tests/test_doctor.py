"""Watching a run: ranks in closed form, judgements of figures, and runs made to collapse."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch import Tensor
from triptych.tasks.config import merge
from triptych.tasks.evaluation.judge import GRACE, RULES, judge
from triptych.tasks.evaluation.rank import effective_rank, lidar, rankme, spread
from triptych.tasks.fit import fit
from triptych.tasks.fit_watch import constants, evenly
from triptych.tasks.report import health_html, report
from triptych.tasks.run import load

from .test_evaluate import npz, untrained

QUICK = {"trainer.enable_progress_bar": False, "trainer.log_every_n_steps": 1, "data.batch_size": 25}
WATCH = {"trainer.callbacks": {"class_path": "triptych.tasks.fit_watch.Watch", "init_args": {"every": 2}}}


def entropy(*shares: float) -> float:
    return -sum(share * math.log(share) for share in shares)


def test_rankme_in_closed_form() -> None:
    turn = torch.linalg.qr(torch.randn(7, 7)).Q
    assert rankme(3 * turn) == pytest.approx(7, rel=1e-4)
    assert rankme(torch.outer(torch.randn(11), torch.randn(5))) == pytest.approx(1, rel=1e-4)
    assert rankme(torch.diag(torch.tensor([3.0, 1, 0]))) == pytest.approx(
        math.exp(entropy(0.75, 0.25)), rel=1e-4
    )
    assert rankme(torch.full((11, 5), 2.0)) == pytest.approx(1, rel=1e-4)  # constant features
    assert effective_rank(torch.zeros(3)) == pytest.approx(1, rel=1e-3)


def naive_lidar(x: Tensor, ridge: float) -> float:
    """Definition 1 of the paper, loop by loop."""
    n, q, d = x.shape
    x = x.double()
    centre = x.flatten(0, 1).mean(0)
    between, within = torch.zeros(d, d).double(), ridge * torch.eye(d).double()
    for sample in x:
        mean = sample.mean(0)
        between += torch.outer(mean - centre, mean - centre) / n
        for view in sample:
            within += torch.outer(view - mean, view - mean) / (n * q)
    values, vectors = torch.linalg.eigh(within)
    root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    eigenvalues = torch.linalg.eigvalsh(root @ between @ root).clamp(min=0)
    share = eigenvalues / eigenvalues.sum() + 1e-7
    return float(torch.exp(-(share * share.log()).sum()))


def test_lidar_equals_its_definition_and_is_the_number_of_telling_directions() -> None:
    x = torch.randn(11, 1, 5) + 0.3 * torch.randn(11, 3, 5)
    assert lidar(x) == pytest.approx(naive_lidar(x, 1e-4), rel=1e-6)
    noise = torch.randn(400, 50, 4, generator=torch.Generator().manual_seed(0))
    telling = torch.randn(400, 1, 4, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [9.0, 9, 0, 0]
    )
    assert lidar(telling + noise) == pytest.approx(2, abs=0.05)
    stretched = (telling + noise) @ torch.diag(torch.tensor([1.0, 7, 30, 4]))
    assert lidar(stretched, ridge=0.0) == pytest.approx(lidar(telling + noise, ridge=0.0), rel=1e-6)


def test_spread_of_a_sphere_and_of_a_point() -> None:
    assert spread(torch.randn(5000, 17)) == pytest.approx(1, abs=0.01)
    assert spread(torch.randn(5) + torch.zeros(7, 5)) == pytest.approx(0, abs=1e-6)
    poles = torch.tensor([[1.0, 0], [-1, 0]])
    assert spread(poles) == pytest.approx(2**0.5 / 2)


GROUPS = {
    "uniform collapse": {"teacher_entropy": 5.53, "ln_prototypes": math.log(256), "prototypes_used": 0.4},
    "one-hot collapse": {
        "teacher_entropy": 0.001,
        "ln_prototypes": math.log(64),
        "prototypes_used": 1 / 64,
        "ce": 0.01,
    },
    "uniform collapse of patches": {"patch_entropy": 4.15, "ln_prototypes": math.log(64)},
    "centre at its limit": {"centre_norm": 7.9, "ln_prototypes": math.log(64)},
    "features of low rank": {"rankme": 1.2, "width": 48.0},
    "constant features": {"spread": 0.01},
    "neighbours at chance": {"knn": 0.1, "knn_chance": 0.1},
    "contrastive task at chance": {"accuracy": 0.0099, "chance": 1 / 101},
    "masks out of band": {"masked": 0.03, "accuracy": 0.5, "chance": 0.1},
    "gradients vanished": {"gradient_norm": 1e-19},
    "codes collapsed": {"code_perplexity": 2.0, "codebooks": 2.0},
    "code probabilities collapsed": {"prob_perplexity": 2.01, "codebooks": 2.0},
    "targets collapsed": {"target_variance": 0.001},
    "predictions collapsed": {"prediction_variance": 1e-5, "target_variance": 0.4},
    "classifier at chance": {"ce": 2.3, "ln_classes": math.log(10)},
}
HEALTHY = {
    "teacher_entropy": 0.9,
    "ln_prototypes": math.log(64),
    "prototypes_used": 0.5,
    "patch_entropy": 1.2,
    "centre_norm": 1.7,
    "rankme": 20.0,
    "width": 48.0,
    "spread": 0.6,
    "knn": 0.9,
    "knn_chance": 0.1,
    "accuracy": 0.09,
    "chance": 0.02,
    "masked": 0.49,
    "gradient_norm": 0.7,
    "code_perplexity": 90.0,
    "prob_perplexity": 300.0,
    "codebooks": 2.0,
    "target_variance": 0.4,
    "prediction_variance": 0.2,
    "ce": 1.1,
    "ln_classes": math.log(10),
}


def history(
    figures: dict[str, float], epochs: int = 8, stage: str = "train/x"
) -> list[tuple[int, dict[str, float]]]:
    return [(epoch, {f"{stage}/{name}": value for name, value in figures.items()}) for epoch in range(epochs)]


def test_every_rule_has_its_failure() -> None:
    assert [rule.name for rule in RULES] == list(GROUPS)
    assert judge(history(HEALTHY)) == []
    page = health_html(history(HEALTHY))
    assert "Nothing that was judged has failed." in page and page.count("sound") == len(RULES)
    assert "No figure that tells a collapse was logged." in health_html([])


@pytest.mark.parametrize("name", GROUPS)
def test_a_failure_is_named_with_its_epoch_and_what_to_change(name: str) -> None:
    (finding,) = judge(history(GROUPS[name]))
    assert (finding.name, finding.group, finding.since) == (name, "train/x", GRACE)
    text = str(finding)
    assert text.startswith(f"{name} (train/x) since epoch {GRACE}: ") and ". To change: " in text
    assert "{" not in text


def test_since_when_and_only_while_it_lasts() -> None:
    good, bad = {"train/x/spread": 0.5}, {"train/x/spread": 0.001}
    rows = [(epoch, bad if epoch in (3, 6, 8, 9) else good) for epoch in range(10)]
    rows.insert(9, (8, {"train/x/other": 1.0}))  # an epoch without the figure breaks nothing
    (finding,) = judge(rows)
    assert finding.since == 8
    assert judge(rows[:-1]) == []  # once is not yet a finding
    assert judge([*rows, (10, good)]) == []  # recovered
    both = [(e, {**f, **{k.replace("train", "val"): v for k, v in f.items()}}) for e, f in rows]
    assert [one.group for one in judge(both)] == ["train/x"]
    assert judge([(e, {"train/x/spread": math.nan}) for e in range(9)]) == []


def test_what_figures_are_judged_by_is_found_in_parts_too(tmp_path: Path) -> None:
    data = npz(tmp_path)
    ibot, sit = (
        constants(load(untrained(f"vision/{name}", tmp_path / name, data)).model) for name in ("ibot", "sit")
    )
    assert ibot["ibot/ln_prototypes"] == pytest.approx(math.log(64)) and ibot["ibot/centre_norm"] == 0
    assert sit["rotation/ln_classes"] == pytest.approx(math.log(4))


def collapsed(tmp_path: Path, **dino: object) -> tuple[Path, str]:
    changes = {f"model.objectives.dino.{key}": value for key, value in dino.items()}
    config = merge(["vision/dino"], {**QUICK, "data.path": npz(tmp_path), "trainer.max_epochs": 8, **changes})
    directory = fit(config, output=str(tmp_path / "run"))
    return directory, (directory / "log.txt").read_text()


def test_a_run_made_uniform_is_told_of_in_its_log(tmp_path: Path) -> None:
    directory, log = collapsed(tmp_path, teacher_temperature=5.0)
    assert "WARNING uniform collapse (train/dino) since epoch 3: the teacher finds every prototype" in log
    assert "To change: a lower teacher_temperature" in log and log.count("uniform collapse") == 1
    page = report(str(directory)).read_text()
    assert "<b>uniform collapse</b> (train/dino) since epoch 3: the teacher finds" in page
    assert "To change: a lower teacher_temperature" in page and "<b>failed</b>" in page
    assert page.count("data:image/png;base64,") == 2  # curves and the panel's picture
    assert "src='http" not in page and "<link" not in page and "<script" not in page
    (directory / "metrics.json").write_text(
        json.dumps({"kNN": [{"system": "this <run>", "metric": "a", "value": 0.5}]})
    )
    again = report(str(directory), str(tmp_path / "page.html")).read_text()
    assert "this &lt;run&gt;" in again and "The training has not finished." in again


def test_a_run_made_one_hot_is_told_of_in_its_log(tmp_path: Path) -> None:
    _, log = collapsed(tmp_path, teacher_temperature=0.002, centre_momentum=1.0, batch_norm=False)
    assert "one-hot collapse (train/dino)" in log and "Sinkhorn-Knopp" in log


def rustling(root: Path) -> Path:
    """Sixteen seconds of noise whose colour changes, in clips of two."""
    rng = np.random.default_rng(0)
    for index in range(8):
        sound = rng.standard_normal(4000).cumsum() * np.hanning(4000) / 50 + 0.1 * rng.standard_normal(4000)
        soundfile.write(root / f"{index}.wav", 0.2 * sound / abs(sound).max(), 2000)
    return root


def contrastive(root: Path, lr: float) -> str:
    """The log of a short run of wav2vec 2.0 on waveforms, layer norm after each convolution."""
    init = "model.objectives.wav2vec2.init_args"
    settings = {
        "model.tokenizers.audio.init_args": {
            "convolutions": [[16, 20, 10], [16, 4, 4]],
            "initial": "random",
            "positions": {"kernel": 5, "groups": 4},
        },
        "model.encoder": {"width": 16, "depth": 1, "heads": 2},
        "model.optimizer.lr": {"start": lr, "end": lr},
        f"{init}.quantiser.init_args": {"groups": 2, "codes": 8, "width": 16},
        "data.path": str(rustling(root)),
        "data.rate": 2000,
        "data.segment": 2.0,
        "data.batch_seconds": 4.0,
        "data.sampling": None,
        "trainer.max_epochs": 10,
        "trainer.enable_progress_bar": False,
        "trainer.log_every_n_steps": 1,
    }  # fmt: skip
    directory = fit(merge(["speech/xlsr"], settings), output=str(root / "run"))
    return (directory / "log.txt").read_text()


def test_a_quantiser_made_to_collapse_is_told_of(tmp_path: Path) -> None:
    """By steps so large that one code a codebook is left for all frames."""
    log = contrastive(tmp_path, 0.3)
    assert "codes collapsed (train/wav2vec2)" in log and "over 2 codebooks" in log
    assert "a higher weight of the diversity term" in log


def test_a_contrastive_run_that_stands_still_is_told_of(tmp_path: Path) -> None:
    """Nothing moves, so that the loss stays at the logarithm of the candidates."""
    log = contrastive(tmp_path, 1e-12)
    assert "contrastive task at chance (" in log and "codes collapsed" not in log


def test_watch_logs_into_the_metrics_and_changes_no_draw(tmp_path: Path) -> None:
    data = npz(tmp_path)
    base = {**QUICK, "data.path": data, "trainer.max_epochs": 3}
    watched = fit(merge(["vision/dino"], {**base, **WATCH}), output=str(tmp_path / "watched"))
    alone = fit(merge(["vision/dino"], base), output=str(tmp_path / "alone"))
    one, other = (pd.read_csv(run / "metrics.csv") for run in (watched, alone))
    assert one["train/loss"].dropna().tolist() == other["train/loss"].dropna().tolist()
    seen = one.dropna(subset=["val/knn"])
    assert seen["epoch"].tolist() == [1, 2]  # the second, and the last
    for name in ("knn", "knn_chance", "linear", "rankme", "lidar", "spread", "width"):
        assert seen[f"val/{name}"].between(0, 48).all(), name
    assert (seen["val/rankme"] >= 1).all() and (seen["val/width"] == 48).all()
    assert one["train/dino/ln_prototypes"].dropna().unique() == pytest.approx(math.log(64))
    assert (
        "train/dino/centre_norm" in one
        and "val/rankme" in json.loads((watched / "metrics.json").read_text())["fit"]
    )


def test_places_are_spread_evenly() -> None:
    assert evenly(3, 5) == [0, 1, 2] and evenly(10, 4) == [0, 2, 5, 7]
