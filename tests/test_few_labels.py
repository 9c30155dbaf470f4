"""Training from few labels: exact counts, the same draw for any config, held-out parts untouched."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from triptych.tasks.config import merge
from triptych.tasks.evaluate import knn, linear
from triptych.tasks.evaluation.finetune import finetune
from triptych.tasks.fit import fit
from triptych.tasks.run import load
from triptych.tasks.vision.data import Images
from triptych.tasks.vision.panel import measure, svm
from triptych.tokenizers.errors import UserError

from .test_evaluate import npz

QUICK = {"trainer.max_epochs": 1, "trainer.enable_progress_bar": False, "data.batch_size": 16}


def digits(**settings: object) -> Images:
    made = Images("digits", **settings)  # type: ignore[arg-type]
    made.setup()
    return made


def labelled(data: Images, split: str = "train") -> dict[str, str]:
    """Names of the images of a part that have a label, and which."""
    source = data.source
    assert source is not None
    rows = zip(source.names, source.labels, source.splits, strict=True)
    return {name: label for name, label, part in rows if part == split and label is not None}


def test_a_share_is_exact_in_every_class() -> None:
    whole = Counter(labelled(digits()).values())
    kept = Counter(labelled(digits(labels=0.1)).values())
    assert kept == {name: round(0.1 * count) for name, count in whole.items()}
    assert set(Counter(labelled(digits(labels=0.01)).values()).values()) == {1}


def test_a_count_a_class_is_exact() -> None:
    assert set(Counter(labelled(digits(labels=4)).values()).values()) == {4}
    assert labelled(digits(labels=10_000)) == labelled(digits())
    assert len(labelled(digits(labels=1))) == 10


def test_draws_differ_and_a_larger_share_holds_the_smaller() -> None:
    draws = [set(labelled(digits(labels=0.05, draw=draw))) for draw in range(4)]
    chance = len(draws[0]) ** 2 / len(labelled(digits()))  # of two draws' common images: 3.2
    for one in range(4):
        assert all(len(draws[one] & draws[other]) < 5 * chance for other in range(one))
    assert draws[2] <= set(labelled(digits(labels=0.2, draw=2)))


def test_the_draw_is_that_of_any_config() -> None:
    alike = [digits(labels=7, draw=3), digits(labels=7, draw=3, seed=9, batch_size=5, size=6, views={})]
    assert labelled(alike[0]) == labelled(alike[1]) != labelled(digits(labels=7, draw=4))


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_parts_keep_all_labels_and_lend_none(split: str) -> None:
    few, all_of_them = digits(labels=2, draw=1), digits()
    assert labelled(few, split) == labelled(all_of_them, split)
    assert few.names(split) == all_of_them.names(split)
    assert few.samples(split).labels == all_of_them.samples(split).labels  # type: ignore[arg-type]
    assert not set(labelled(few)) & set(few.names(split))


def test_images_without_a_label_stay_unless_all_objectives_need_one() -> None:
    data = digits(labels=3)
    assert len(data.samples("train")) == len(data.names("train")) == 1293
    assert data.classes == [str(i) for i in range(10)]
    data.supervise()
    assert len(data.samples("train")) == 30 and -1 not in data.samples("train").labels
    assert len(data.samples("train", plain=True)) == 1293  # embeddings and names go together
    assert len(data.samples("val")) == 144


@pytest.mark.parametrize(("config", "seen"), [("vision/finetune", 6), ("vision/joint-labels", 50)])
def test_which_images_a_fit_sees(config: str, seen: int, tmp_path: Path, monkeypatch) -> None:
    names: list[int] = []
    real = Images.samples

    def samples(self: Images, split: str, plain: bool = False):  # type: ignore[no-untyped-def]
        made = real(self, split, plain)  # type: ignore[arg-type]
        if split == "train" and not plain:
            names.append(len(made))
        return made

    monkeypatch.setattr(Images, "samples", samples)
    fit(
        merge([config], {**QUICK, "data.path": npz(tmp_path), "data.labels": 2}), output=str(tmp_path / "run")
    )
    assert names == [seen]


def test_pretrained_then_tuned_on_few_labels(tmp_path: Path) -> None:
    quick = {**QUICK, "data.path": npz(tmp_path)}
    run = str(fit(merge(["vision/dino"], quick), output=str(tmp_path / "dino")))
    few = {"data.labels": 2, "data.draw": 3}
    tuned = fit(merge(["vision/finetune"], quick | few), output=str(tmp_path / "tuned"), init=run)
    assert {row.system for row in measure(load(tuned))} >= {"this run", "RBF-SVM on pixels, tuned"}
    rows = finetune(run, {**QUICK, **few}, seeds=1)
    assert len(rows) == 3
    config = load(Path(run) / "finetune-1" / "scratch-0").config["data"]["init_args"]
    assert (config["labels"], config["draw"]) == (2, 3)


def test_probes_learn_from_the_labels_that_are_kept(tmp_path: Path, capsys) -> None:
    run = str(
        fit(merge(["vision/dino"], {**QUICK, "data.path": npz(tmp_path)}), output=str(tmp_path / "dino"))
    )
    linear(run, {"data.labels": 2, "data.draw": 3}, epochs=2, seeds=1)
    knn(run, {"data.labels": 0.1})
    told = " ".join(capsys.readouterr().out.split())
    assert "6 samples to train, 15 to choose, 25 to test, 3 classes" in told
    assert "6 samples to train" in told.partition("kNN")[2]


def test_a_support_vector_machine_on_one_label_a_class() -> None:
    import torch

    x = torch.eye(3).repeat(4, 1) + 0.01 * torch.arange(12.0)[:, None]
    label = torch.arange(12) % 3
    assert torch.equal(svm(x[:3], label[:3], x), label) and torch.equal(svm(x[:9], label[:9], x), label)


def test_what_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a share below 1 or a whole number a class, but is 2\.5"):
        digits(labels=2.5)
    with pytest.raises(UserError, match="but is 0"):
        digits(labels=0)
    np.savez(tmp_path / "bare.npz", train_x=np.zeros((30, 8, 8)), test_x=np.zeros((5, 8, 8)))
    with pytest.raises(UserError, match="the train part has no labels to keep"):
        Images(str(tmp_path / "bare.npz"), labels=0.5).setup()
