"""ReaL labels: any class that is right counts, images without one are left out, beside top-1."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from triptych.tasks.config import merge
from triptych.tasks.evaluate import knn, linear
from triptych.tasks.evaluation.finetune import finetune
from triptych.tasks.evaluation.labels import REAL, Truth, accuracy_rows, tell
from triptych.tasks.fit import fit, run_stage
from triptych.tasks.run import load
from triptych.tasks.vision.panel import measure

NAMES = ("n01", "n02", "n03")
QUICK = {
    "trainer.max_epochs": 1,
    "trainer.enable_progress_bar": False,
    "data.batch_size": 8,
    "data.size": 8,
    "data.channels": 1,
}


@pytest.fixture
def imagenet(tmp_path: Path) -> str:
    """ImageNet's layout in small: 60 pictures to train on, 6 to test, of which one has no ReaL label."""

    def save(path: Path, grey: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), grey).save(path)

    root = tmp_path / "imagenet"
    for number, name in enumerate(NAMES):
        for i in range(20):
            save(root / "train" / name / f"{name}_{i}.JPEG", 100 * number + i)
    for i in range(6):
        save(root / "val" / NAMES[i % 3] / f"ILSVRC2012_val_{i + 1:08d}.JPEG", 100 * (i % 3))
    # by number: right as labelled, another class as well, another class instead, none, all, as labelled
    (root / "real.json").write_text(json.dumps([[0], [1, 0], [0], [], [0, 1, 2], [2]]))
    return str(root)


def test_rows_of_both_accuracies() -> None:
    label = torch.tensor([0, 1, 2, 2])
    accepted = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=torch.bool)
    told = torch.tensor([[0, 0, 2, 2], [0, 1, 2, 0]])
    top, real = accuracy_rows("it", "accuracy", told, Truth(label, accepted), baseline=False)
    assert (top.metric, top.value) == ("accuracy", pytest.approx((3 / 4 + 3 / 4) / 2))
    assert (real.metric, real.value) == ("accuracy" + REAL, pytest.approx((2 / 3 + 3 / 3) / 2))
    assert not top.baseline and not real.baseline
    assert [row.metric for row in accuracy_rows("it", "accuracy", told, Truth(label))] == ["accuracy"]


def test_every_table_tells_both(imagenet: str, tmp_path: Path) -> None:
    run = str(fit(merge(["vision/dino"], {**QUICK, "data.path": imagenet}), output=str(tmp_path / "dino")))
    own = str(fit(merge(["vision/finetune"], {**QUICK, "data.path": imagenet}), output=str(tmp_path / "own")))
    tables = {
        "knn": knn(run, {}, beside=own),
        "linear": linear(run, {}, epochs=3, seeds=2),
        "finetune": finetune(run, QUICK, seeds=1),
        "panel, frozen": measure(load(run)),
        "panel, supervised": measure(load(own)),
    }
    for name, rows in tables.items():
        top, real = rows[::2], rows[1::2]
        assert [row.system for row in top] == [row.system for row in real], name
        assert [row.metric + REAL for row in top] == [row.metric for row in real], name
        assert all(round(6 * row.value, 6) % 0.5 == 0 for row in top), name
    systems = [row.system for row in tables["knn"][::2]]
    assert systems[:2] == ["this run", "untrained encoder"] and systems[2].startswith("from scratch: ")
    largest = next(row for row in tables["knn"] if row.system == "largest class" and REAL in row.metric)
    assert largest.value in (pytest.approx(4 / 5), pytest.approx(2 / 5))  # of class 0, or of another


def test_testing_a_classifier_logs_both(imagenet: str, tmp_path: Path) -> None:
    # batches of four and two: the mean must count pictures, not batches
    quick = {**QUICK, "data.path": imagenet, "data.batch_size": 4}
    directory = fit(merge(["vision/finetune"], quick), output=str(tmp_path / "run"))
    run_stage("test", str(directory), {})
    logged = json.loads((directory / "metrics.json").read_text())["test"]
    told, truth = tell(load(directory))
    assert truth.accepted is not None and truth.accepted.sum(1).tolist() == [1, 0, 2, 3, 1, 1]
    real = truth.accepted[torch.arange(6), told][truth.accepted.any(1)].float().mean()
    assert logged["test/classification/accuracy"] == pytest.approx(
        float((told == truth.label).float().mean())
    )
    assert logged["test/classification/real_accuracy"] == pytest.approx(float(real))
