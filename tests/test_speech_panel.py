"""The letters probe against planted answers, and the panel's figures and picture on tones."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from triptych.backbones.encoder import Encoder
from triptych.backbones.teacher import Teacher
from triptych.objectives.latent_regression import LatentRegression
from triptych.objectives.masked_contrastive import MaskedContrastive
from triptych.objectives.quantiser import GumbelQuantiser
from triptych.tasks.model import Model
from triptych.tasks.speech.data import Audio, Columns
from triptych.tasks.speech.features import durations, encoded
from triptych.tasks.speech.hours import curves, draw_hours, hours_of_epoch
from triptych.tasks.speech.masks import SpanMask
from triptych.tasks.speech.panel import OWN, UNTRAINED, contrasts, measure, picture, voice_rows
from triptych.tasks.speech.picture import by_pitch, draw, listen, runs
from triptych.tasks.speech.probe import folds, groups, letters, logistic, score
from triptych.tasks.speech.views import AudioView
from triptych.tokenizers.audio import Positions
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.errors import UserError

RATE = 1000


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Audio:
    """Twelve noises of .5 to 1.6 s, four of them for the test, with texts."""
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for index in range(12):
        soundfile.write(root / f"{index}.wav", 0.1 * rng.standard_normal(500 + 100 * index), RATE)
    splits = ["train"] * 7 + ["val"] + ["test"] * 4
    texts = [f"clip {index}" for index in range(12)]
    table = pd.DataFrame({"path": [f"{i}.wav" for i in range(12)], "text": texts, "split": splits})
    table.to_csv(root / "manifest.csv", index=False)
    view = AudioView(SpanMask(0.5, 3, 1))
    return Audio(
        str(root / "manifest.csv"), {"train": view}, RATE, segment=1.5, batch_seconds=3.0, columns=Columns()
    )


@pytest.fixture(scope="module")
def model(data: Audio) -> Model:
    tokenizer = LogMelFrames(5, window=32, hop=10, positions=Positions(3, 1))
    objective = MaskedContrastive(GumbelQuantiser(2, 3, 8), width=7)
    model = Model({"audio": tokenizer}, Encoder(8, 2, 2), {"wav2vec2": objective})
    data.attach({"audio": tokenizer})
    data.setup()
    model.build(data.views(), data.facts())
    return model.eval()


def test_letters_that_are_rare_or_everywhere_are_left_out() -> None:
    texts = ["ab", "Ac", "abz", *["ab", "ac"] * 9]
    kept, present = letters(texts)
    assert kept == ["b", "c"]  # a is in all 21 texts, z in one
    assert present[:3].tolist() == [[True, False], [False, True], [True, False]]


def test_clips_that_share_a_prompt_or_a_text_are_one_group_even_in_a_chain() -> None:
    table = pd.DataFrame(
        {"prompt": ["p", "p", "q", "r", "s"], "text": ["Uno", "due", "DUE", "tre", "quattro"]}
    )
    group = groups(table)
    assert group[0] == group[1] == group[2]
    assert len(set(group)) == 3


def test_folds_test_each_clip_once_and_split_no_group() -> None:
    group = np.arange(60) // 3
    masks = folds(group, repeats=2)
    assert len(masks) == 10
    for repeat in (masks[:5], masks[5:]):
        assert (np.sum(repeat, axis=0) == 1).all()
    for mask in masks:
        assert not set(group[mask]) & set(group[~mask])


def planted(noise: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of 200 clips that show two letters, under noise of a deviation."""
    rng = np.random.default_rng(0)
    present = rng.random((200, 2)) < 0.4
    return present + noise * rng.standard_normal((200, 2)), present, np.arange(200)


def test_planted_letters_are_found_and_noise_gives_a_half() -> None:
    x, present, group = planted(0.05)
    assert score([x], present, group).mean > 0.999
    noise = np.random.default_rng(1).standard_normal((200, 5))
    found = score([noise], present, group)
    assert found.mean == pytest.approx(0.5, abs=0.08) and len(found.splits) == 5


def test_letters_together_are_scikit_learns_logistic_regressions() -> None:
    from sklearn.linear_model import LogisticRegression

    x, present, _ = planted(0.5)
    for strength in (0.001, 0.1, 1.0):
        weight, bias = logistic(x, present, strength)
        for column in range(2):
            one = LogisticRegression(C=strength, tol=1e-8).fit(x, present[:, column])
            np.testing.assert_allclose(weight[:, column], one.coef_[0], atol=1e-3)
            np.testing.assert_allclose(bias[column], one.intercept_[0], atol=1e-3)


def test_the_voices_are_told_by_timbre_alone(tmp_path: Path) -> None:
    """Two voices, one hissing and one humming: the sanity line says that no model is needed."""
    rng = np.random.default_rng(3)
    for index in range(12):
        noise = rng.standard_normal(8000)
        soundfile.write(tmp_path / f"{index}.wav", 0.01 * (noise.cumsum() if index % 2 else noise), 8000)
    table = pd.DataFrame({"path": [f"{i}.wav" for i in range(12)], "speaker": ["hiss", "hum"] * 6})
    table["split"] = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    table.to_csv(tmp_path / "manifest.csv", index=False)
    data = Audio(str(tmp_path / "manifest.csv"), rate=8000)
    data.setup()
    (row,) = voice_rows(data)
    assert row.baseline and row.value == 1.0 and "speaker" in row.metric
    data.table["speaker"] = "hiss"
    assert voice_rows(data) == []


def test_the_layer_is_chosen_on_training_clips() -> None:
    x, present, group = planted(0.05)
    noise = np.random.default_rng(1).standard_normal((200, 5))
    assert score([noise, x], present, group).mean > 0.999


def test_a_clips_features_do_not_depend_on_the_batch(data: Audio, model: Model) -> None:
    waveforms = [data.clips[index] for index in range(len(data.clips))]
    together, alone = encoded(model, waveforms, [0, 1, -1]), encoded(model, waveforms, [0, 1, -1], batch=1)
    for layer, vectors in together.items():
        assert vectors.shape == (12, 16)
        np.testing.assert_allclose(vectors, alone[layer], atol=1e-5)
    np.testing.assert_allclose(durations(waveforms, RATE)[3], [0.8, np.log(0.8)])


class Finished:
    """What `measure` reads of a run."""

    def __init__(self, data: Audio, model: Model) -> None:
        self.model, self._data = model, data

    def data(self) -> Audio:
        return self._data

    def untrained(self) -> Model:
        return self.model


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")  # MFCC of 25 samples
def test_measure_gives_the_run_beside_every_baseline(data: Audio, model: Model) -> None:
    """Sixty clips of one language, whose texts and lengths say nothing; a second has too few."""
    table = data.table.copy()
    rng = np.random.default_rng(2)
    rows = pd.concat([table] * 6, ignore_index=True)
    rows["text"] = ["".join(rng.choice(list("abcd"), 2)) + str(index) for index in range(72)]
    rows["language"] = ["xx"] * 60 + ["yy"] * 12
    own = data.clips.table
    try:
        data.clips.table = rows
        found = measure(Finished(data, model))
    finally:
        data.clips.table = own
    letter_rows = {row.system: row for row in found if row.metric.startswith("letters")}
    assert {row.metric for row in letter_rows.values()} == {"letters in the transcript, AUC (xx)"}
    encoders = [f"{name}{more}" for name in (UNTRAINED, OWN) for more in ("", " + duration")]
    assert list(letter_rows) == ["clip duration", "MFCC + duration", *encoders]
    assert [name for name, row in letter_rows.items() if not row.baseline] == [OWN, f"{OWN} + duration"]
    assert all(row.low <= row.value <= row.high for row in letter_rows.values())
    assert letter_rows[OWN].value == letter_rows[UNTRAINED].value  # one model stands for both here
    by_metric = {(row.system, row.metric): row.value for row in found}
    ratio, accuracy = by_metric[OWN, "accuracy / chance"], by_metric[OWN, "contrastive accuracy"]
    chance = by_metric[f"chance, codes of {OWN}", "contrastive accuracy"]
    assert ratio == pytest.approx(accuracy / chance)


def test_contrasts_count_every_hidden_frame_of_the_test_split(data: Audio, model: Model) -> None:
    member = model.objective["wav2vec2"]
    found, again = contrasts(model, member, data), contrasts(model, member, data)
    masked = sum(int(batch["train"].masked.sum()) for batch in data.test_dataloader())
    assert found.frames == masked and found == again
    assert found.chance >= 1 / 9 - 1e-6  # two codebooks of three codes are nine kinds
    assert 0 <= found.accuracy <= 1 and 2 / 6 - 1e-6 <= found.share <= 1


def test_the_picture_shows_held_out_clips_with_their_texts(data: Audio, model: Model, tmp_path: Path) -> None:
    heard = listen(model, model.objective["wav2vec2"], data)
    assert [text for _, text in heard.clips] == ["clip 8", "clip 9", "clip 10", "clip 11"]
    assert heard.clips[1][0] == pytest.approx(1.3)
    assert len(heard.right) == int(heard.masked.sum()) and heard.codes.shape == (len(heard.masked), 2)
    draw(heard, tmp_path / "panel.png")
    assert (tmp_path / "panel.png").read_bytes().startswith(b"\x89PNG")


def test_runs_without_codes_and_without_a_contrast_have_their_rows(data: Audio, tmp_path: Path) -> None:
    """BigSSL's task has no codes to show, data2vec's no contrast at all; the letters are asked of both."""
    for member in (MaskedContrastive(None, width=7), LatentRegression(2)):
        encoder, tokenizer = Encoder(8, 2, 2), LogMelFrames(5, window=32, hop=10, positions=Positions(3, 1))
        teacher = None if isinstance(member, MaskedContrastive) else Teacher()
        model = Model({"audio": tokenizer}, encoder, {"it": member}, teacher=teacher)
        model.build(data.views(), data.facts())
        metrics = {row.metric for row in measure(Finished(data, model.eval()))}
        assert metrics == ({"contrastive accuracy", "accuracy / chance"} if teacher is None else set())
        if teacher is None:
            assert "like colour" not in picture(Finished(data, model), tmp_path / "panel.png")
        else:
            with pytest.raises(UserError, match="the objective MaskedContrastive, but it has none"):
                picture(Finished(data, model), tmp_path / "panel.png")


def test_codes_are_ranked_by_the_pitch_of_their_frames() -> None:
    spectrum = torch.full((8, 3), -60.0)
    spectrum[7, 0] = spectrum[0, 1] = spectrum[4, 2] = 0.0  # high, low, middle
    ranked = by_pitch(torch.tensor([[2], [1], [0]]), spectrum, 3)
    assert ranked.flatten().tolist() == [2, 0, 1]


def test_runs_are_the_stretches_of_true() -> None:
    masked = torch.tensor([1, 1, 0, 1, 0, 0, 1], dtype=torch.bool)
    assert runs(masked) == [(0, 2), (3, 4), (6, 7)]


def test_accuracy_by_hours_heard_beside_published_runs(data: Audio, tmp_path: Path) -> None:
    """Seven clips of .5 to 1.1 s are 5.6 s; segments of 1.5 s of them 4.5 s an epoch."""
    hours = hours_of_epoch(data)
    assert hours == pytest.approx(4.5 / 3600)
    figures = {"train/x/accuracy": 0.1, "train/x/chance": 0.02, "val/y/accuracy": 0.5, "val/loss": 1.0}
    history = [(0, figures), (2, {**figures, "train/x/accuracy": 0.3})]
    found = curves(history, 2.0)
    assert found == {"train": ([(2.0, 0.1), (6.0, 0.3)], [(2.0, 0.02), (6.0, 0.02)])}
    draw_hours(found, tmp_path / "hours.png")
    assert (tmp_path / "hours.png").read_bytes().startswith(b"\x89PNG")
