"""Beside the accuracies on MNIST-5k: few labels without a network, attention as segmentation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mnist_judge import Wrong, wrong
from runs import figures
from triptych.tasks.features import features
from triptych.tasks.run import Run, load
from triptych.tasks.vision.attention import SHARE
from triptych.tasks.vision.segment import attention_rows


def pixels_of_few(run: Run) -> dict[str, Wrong]:
    """1-NN and an RBF-SVM (C=10, scikit-learn's gamma) on pixels, from the labels that a run learnt from."""
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    data = run.data()
    train, test = (features(run.model, data.plain(part)).labelled() for part in ("train", "test"))
    assert train.raw is not None and test.raw is not None
    told: dict[str, Wrong] = {}
    for name, machine in (("1-NN on pixels", KNeighborsClassifier(1)), ("RBF-SVM on pixels", SVC(C=10))):
        machine.fit(train.raw.numpy(), train.label.numpy())
        right = torch.from_numpy(machine.predict(test.raw.numpy())) == test.label
        told[name] = {"accuracy": wrong(right)}
    return told


def segmentation(run: Path, beside: Path, masks: str, seed: int) -> list[dict[str, Any]]:
    """What `triptych evaluate segmentation --run RUN --masks MASKS --beside RUN` measures of attention.

    The untrained encoder of the command is always drawn by seed 0; one of this seed is beside it.
    """
    own = load(run)
    others = {
        "supervised": load(beside),
        "untrained encoder of this seed": replace(own, model=own.untrained(seed)),
    }
    metric = f"Jaccard of the best head ({SHARE:.0%} of the attention)"
    return figures(attention_rows(own, others, {}, masks, metric, SHARE))
