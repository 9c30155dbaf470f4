"""How a run on MNIST-5k is judged: which test samples are told wrongly, by its head or on frozen features.

Shapes: N test samples.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor
from triptych.objectives.classification import Classification
from triptych.tasks.data import Data
from triptych.tasks.evaluate import gather
from triptych.tasks.evaluation.heads import RATES, Recipe
from triptych.tasks.evaluation.labels import tell
from triptych.tasks.evaluation.sweep import Parts, Sample, sweep
from triptych.tasks.features import Reading, knn_predict
from triptych.tasks.model import Model
from triptych.tasks.run import Run
from triptych.tasks.vision.panel import NEIGHBOURS, TEMPERATURE, nearest

ACCURACY, KNN = "accuracy", f"kNN accuracy (k={NEIGHBOURS}, T={TEMPERATURE})"
LINEAR, NONLINEAR = "linear probe accuracy", "non-linear probe accuracy"
RECIPE = Recipe(epochs=30)
#: Of five learning rates, for a hidden layer costs a hundred times what a linear head does.
HIDDEN = Recipe("nonlinear", epochs=20, rates=RATES[4:9])
SVM = {"C": (10.0,), "gamma": (0.5, 1.0, 2.0)}

#: metric -> how many test samples there are, and which of them were told wrongly.
Wrong = dict[str, dict[str, Any]]


def wrong(right: Tensor) -> dict[str, Any]:
    """Of `(N,)` bool."""
    return {"samples": len(right), "indices": (~right).nonzero().flatten().tolist()}


def judge(run: Run) -> Wrong:
    """A head's accuracy, where there is one, and kNN and a linear probe on frozen features."""
    supervised = any(isinstance(member, Classification) for _, member in run.model.objective)
    own = {}
    if supervised:
        told, truth = tell(run)
        own[ACCURACY] = wrong(told == truth.label)
    return own | frozen(run.model, run.data())


def frozen(model: Model, data: Data) -> Wrong:
    """kNN and linear probe, each on the reading of the tokens that the validation part likes best."""
    prefix = model.tokenizers["image"].prefix
    assert isinstance(prefix, tuple)
    pools = dict.fromkeys([*prefix, "mean", "+".join((*prefix, "mean"))])
    parts = gather(model, data, [(Reading(pool),) for pool in pools])
    right, pool = neighbours(parts)
    return {KNN: {**wrong(right), "reading": pool}, LINEAR: probed(parts)}


def probes(model: Model, data: Data) -> Wrong:
    """`frozen`, and SiT's non-linear probe of all tokens and the mean."""
    prefix = model.tokenizers["image"].prefix
    assert isinstance(prefix, tuple)
    parts = gather(model, data, [(Reading("+".join((*prefix, "mean"))),)])
    return frozen(model, data) | {NONLINEAR: probed(parts, HIDDEN)}


def probed(readings: list[Parts], recipe: Recipe = RECIPE) -> dict[str, Any]:
    """A probe's."""
    (told,), choice = sweep(readings, recipe, seeds=1)
    return {**wrong(told == readings[0].single()[2].label), "reading": choice}


def neighbours(readings: list[Parts]) -> tuple[Tensor, str]:
    """Which test samples kNN tells rightly on the reading that is best on the validation part; its name."""
    tried = []
    for parts in readings:
        train, val, test = parts.single()
        both = [
            knn_predict(train.x, train.label, some.x, NEIGHBOURS, TEMPERATURE) == some.label
            for some in (val, test)
        ]
        tried.append((float(both[0].double().mean()), both[1], parts.name))
    _, right, name = max(tried, key=lambda one: one[0])
    return right, name


def untrained(run: Run, seed: int, nonlinear: bool) -> Wrong:
    """An encoder of the run's shape with fresh weights."""
    return (probes if nonlinear else frozen)(run.untrained(seed), run.data())


def raw_pixels(run: Run, nonlinear: bool) -> Wrong:
    """Pixels of the run's data by 3-NN, kNN, linear (and non-linear) probe and SVM."""
    (pixels,) = gather(run.model, run.data(), [(Reading("mean"),)])
    train, val, test = (Sample(part.raw, part.label) for part in pixels.single())
    raw = [Parts("", ((train,), (val,), (test,)))]
    right, _ = neighbours(raw)
    machine, settings = svm(train, val, test)
    hidden = {NONLINEAR: probed(raw, HIDDEN)} if nonlinear else {}
    return {
        "3-NN accuracy": wrong(nearest(train.x, train.label, test.x) == test.label),
        KNN: wrong(right),
        LINEAR: probed(raw),
        **hidden,
        "RBF-SVM accuracy": {**wrong(machine), "reading": settings},
    }


def svm(train: Sample, val: Sample, test: Sample) -> tuple[Tensor, str]:
    """What an SVM tells rightly, tuned on the validation part; gamma in units of scikit-learn's `scale`."""
    from sklearn.svm import SVC

    scale = 1 / (train.x.shape[1] * train.x.var().item())
    tried = []
    for c, gamma in product(*SVM.values()):
        machine = SVC(C=c, gamma=gamma * scale).fit(train.x.numpy(), train.label.numpy())
        tried.append((machine.score(val.x.numpy(), val.label.numpy()), f"C {c:g}, gamma {gamma:g}", machine))
    _, settings, machine = max(tried, key=lambda one: one[0])
    return torch.from_numpy(machine.predict(test.x.numpy())) == test.label, settings
