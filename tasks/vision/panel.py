"""What the panel of images says of a run: figures beside their baselines, and a picture.

Shapes: B samples, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...objectives.classification import Classification
from ...tokenizers.errors import UserError
from ...tokenizers.image import ImagePatches
from ..evaluation.labels import Truth, accuracy_rows, tell
from ..features import Features, features, knn_predict
from ..panel import Picture, Row
from ..run import Run
from .reconstruct import draw_reconstruction, rebuilding
from .views import MODALITY

#: Chosen before any test part was looked at: DINO's protocol (Caron et al. 2021).
NEIGHBOURS, TEMPERATURE = 20, 0.07
KNN = f"kNN accuracy (k={NEIGHBOURS}, T={TEMPERATURE})"
ACCURACY = "accuracy"

#: How wide the tuned SVM searches.
SVM_GRID = {"C": [1.0, 3.0, 10.0, 30.0], "gamma": [0.25, 0.5, 1.0, 2.0, 4.0]}


def measure(run: Run) -> list[Row]:
    """The run's figures on its test part, beside its baselines.

    A run with a classification head is measured by its accuracy, any other by its nearest neighbours on
    frozen features; labels serve the neighbours alone.

    Raises:
        UserError: the test part has no labels.
    """
    data = run.data()
    pixels = (
        features(run.model, data.plain("train")).labelled(),
        features(run.model, data.plain("test")).labelled(),
    )
    if not len(pixels[0].label) or not len(pixels[1].label):
        raise UserError("figures need labelled images in the train and test parts, but one of them has none")
    if any(isinstance(member, Classification) for _, member in run.model.objective):
        return _supervised(run, *pixels)
    return _frozen(run)


def _supervised(run: Run, train: Features, test: Features) -> list[Row]:
    """Accuracy of the head, and of what needs no network."""
    told, truth = tell(run)
    rows = accuracy_rows("this run", ACCURACY, told[None], truth, baseline=False)
    if train.raw is not None and test.raw is not None:
        for system, method in (("3-NN on pixels", nearest), ("RBF-SVM on pixels, tuned", svm)):
            rows += accuracy_rows(system, ACCURACY, method(train.raw, train.label, test.raw)[None], truth)
    return rows


def _frozen(run: Run) -> list[Row]:
    """Nearest neighbours on each kind of features of the run and of an untrained encoder, and on pixels."""
    data, untrained = run.data(), run.untrained()
    rows: list[Row] = []
    tokenizer = run.model.tokenizers[MODALITY]
    assert isinstance(tokenizer, ImagePatches)
    for system, model in (("this run", run.model), ("untrained encoder", untrained)):
        for kind, pool in pools(tokenizer.prefix).items():
            train, test = (
                features(model, data.plain(part), pool=pool).labelled() for part in ("train", "test")
            )
            predicted = knn_predict(train.x, train.label, test.x, NEIGHBOURS, TEMPERATURE)
            truth = Truth(test.label, test.accepted)
            name = f"{system}, {kind}"
            rows += accuracy_rows(name, KNN, predicted[None], truth, baseline=model is untrained)
    if train.raw is not None and test.raw is not None:
        predicted = knn_predict(train.raw, train.label, test.raw, NEIGHBOURS, TEMPERATURE)
        rows += accuracy_rows("raw pixels", KNN, predicted[None], truth)
    return rows


def pools(prefix: Sequence[str]) -> dict[str, str]:
    """Features that are compared, the headline first: each token's, the patches' mean, and all together."""
    names = [name for name in prefix if not name.startswith("register")]
    if not names:
        return {"mean of patches": "mean"}
    single = {f"{name} token": name for name in names} | {"mean of patches": "mean"}
    return single | {"both" if len(names) == 1 else "all": "+".join((*names, "mean"))}


def nearest(train: Tensor, label: Tensor, query: Tensor) -> Tensor:
    """Classes by the three nearest neighbours."""
    from sklearn.neighbors import KNeighborsClassifier

    model = KNeighborsClassifier(3).fit(train.numpy(), label.numpy())
    return torch.from_numpy(model.predict(query.numpy()))


def svm(train: Tensor, label: Tensor, query: Tensor) -> Tensor:
    """Classes by an RBF support vector machine, tuned by 5-fold cross-validation on the train part alone.

    `gamma` is searched around scikit-learn's `scale`, 1 / (values * variance). A class of fewer than five
    has fewer folds; one label of a class cannot be parted, and C is 10 and gamma `scale` then.
    """
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    scale = 1 / (train.shape[1] * train.var().item())
    grid = {"C": SVM_GRID["C"], "gamma": [factor * scale for factor in SVM_GRID["gamma"]]}
    folds = min(5, int(label.unique(return_counts=True)[1].min()))
    untuned = SVC(C=10.0, gamma=scale)
    model = GridSearchCV(SVC(), grid, cv=folds, n_jobs=1) if folds > 1 else untuned
    return torch.from_numpy(model.fit(train.numpy(), label.numpy()).predict(query.numpy()))


def pictures(run: Run) -> dict[str, Picture]:
    """How each picture of a run is drawn, by its file's name: attention and, where it rebuilds, that."""
    found: dict[str, Picture] = {}
    tokenizer = run.model.tokenizers[MODALITY]
    assert isinstance(tokenizer, ImagePatches)
    if "class" in tokenizer.prefix:
        found["panel.png"] = picture
    if rebuilding(run.model) is not None:
        found["reconstruction.png"] = draw_reconstruction
    return found


def picture(run: Run, path: Path) -> str:
    """Draw the attention of the class token over test images; returns the caption."""
    from .picture import draw_attention

    return draw_attention(run, path)
