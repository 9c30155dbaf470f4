"""What people get wrong, each answered with one sentence and exit status 2."""

import logging

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image
from triptych.cli import main

VIT = ["fit", "--config", "vision/vit"]
SERIES = ["fit", "--config", "series/forecast"]
SPEECH = ["fit", "--config", "speech/wav2vec2"]


def picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8), dtype=np.uint8)).save(path)


def one_class(folder):
    for index in range(11):
        picture(folder / "cat" / f"{index}.png", index)


def unreadable_images(folder):
    for index in range(7):
        for name in ("cat", "dog"):
            file = folder / name / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"no picture at all")


def unreadable_audio(folder):
    for index in range(7):
        (folder / f"{index}.wav").write_bytes(b"no sound at all")


def empty(folder):
    (folder / "nothing").mkdir()


def table(**columns):
    def make(folder):
        pd.DataFrame(columns).to_csv(folder / "table.csv", index=False)

    return make


HOURS = [str(stamp) for stamp in pd.date_range("2026-01-01", periods=53, freq="h")]
SHORT = table(unique_id=["a"] * 53, ds=HOURS, y=np.arange(53.0))
NO_TIME = table(unique_id=["a"] * 53, when=HOURS, y=np.arange(53.0))
TWICE = table(unique_id=["a"] * 53, ds=[*HOURS[:-1], HOURS[0]], y=np.arange(53.0))


@pytest.mark.parametrize(
    "command, make, path, words",
    [
        (VIT, None, "nowhere", ["nowhere"]),
        (VIT, empty, "", ["no image"]),
        (VIT, one_class, "", ["cat"]),
        (VIT, unreadable_images, "", ["0.png"]),
        (SERIES, None, "nowhere.csv", ["nowhere.csv"]),
        (SERIES, SHORT, "table.csv", ["53"]),
        (SERIES, NO_TIME, "table.csv", ["when", "ds"]),
        (SERIES, TWICE, "table.csv", [HOURS[0]]),
        (SPEECH, None, "nowhere", ["nowhere"]),
        (SPEECH, empty, "", ["audio"]),
        (SPEECH, unreadable_audio, "", ["0.wav"]),
    ],
    ids=lambda value: getattr(value, "__name__", None) if callable(value) else None,
)
def test_one_sentence_and_status_2(command, make, path, words, tmp_path, capsys, monkeypatch):
    # Lightning's logger holds on to the terminal of the first test that imported it
    monkeypatch.setattr(logging, "raiseExceptions", False)
    if make is not None:
        make(tmp_path)
    output = tmp_path / "run"
    status = main([*command, "--data.path", str(tmp_path / path), "--output", str(output)])
    said = capsys.readouterr().err.strip().splitlines()
    assert status == 2
    assert said[-1].startswith("triptych: error: ")
    for word in words:
        assert word in said[-1], said[-1]
    assert not any(line.startswith("Traceback") for line in said)
    assert not (output / "model.safetensors").exists()


def test_a_misspelt_key_names_file_line_and_the_nearest(tmp_path, capsys):
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: vision/vit\ntrainer:\n  max_epoch: 3\n")
    assert main(["fit", "--config", str(mine)]) == 2
    said = capsys.readouterr().err
    assert "mine.yaml:3" in said and "max_epoch" in said and "max_epochs" in said


def test_one_bad_file_is_set_aside_and_named(tmp_path, caplog):
    from triptych.tasks.speech.data import Audio

    for index in range(23):
        noise = np.random.default_rng(index).normal(size=8000) * 0.1
        soundfile.write(tmp_path / f"{index}.wav", noise, 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with caplog.at_level("WARNING", logger="triptych"):
        Audio(path=str(tmp_path), segment=None).setup()
    assert "broken.wav" in caplog.text
