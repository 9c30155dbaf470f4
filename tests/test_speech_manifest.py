"""Several roots, every format, and `triptych manifest`: what can be used and what cannot, by name."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from triptych.cli import main
from triptych.tasks.speech.check import audit
from triptych.tasks.speech.clips import Clips
from triptych.tasks.speech.data import Audio
from triptych.tasks.speech.manifest import read_clips
from triptych.tasks.speech.text import alphabet_of, encode, normalise
from triptych.tokenizers.errors import UserError

RATE = 16000
FORMATS = {"wav": None, "flac": None, "ogg": "VORBIS", "opus": "OPUS", "mp3": None}


def tone(path: Path, seconds: float = 0.7, rate: int = RATE, gain: float = 0.5, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = gain * np.sin(2 * np.pi * 200 * np.arange(round(seconds * rate)) / rate)
    kind = "OGG" if path.suffix == ".opus" else None
    subtype = FORMATS.get(path.suffix[1:])
    soundfile.write(path, np.stack([wave] * channels, 1).clip(-1, 1), rate, subtype=subtype, format=kind)
    return path


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rate", [8000, 48000])
def test_every_format_and_rate_gives_the_same_wave(tmp_path: Path, kind: str, rate: int) -> None:
    tone(tmp_path / f"a.{kind}", rate=rate, channels=2)
    tone(tmp_path / "b.wav")
    first, second = Clips(read_clips([str(tmp_path / f"a.{kind}"), str(tmp_path / "b.wav")]), RATE, bool, 30)
    middle = slice(2000, 9000)
    loudness = [wave[middle].square().mean() for wave in (first, second)]
    torch.testing.assert_close(*loudness, rtol=0.06, atol=0)
    spectra = [torch.fft.rfft(wave[middle]).abs().argmax() for wave in (first, second)]
    assert spectra[0] == spectra[1]


def test_stereo_at_96_khz_is_mixed_and_resampled(tmp_path: Path) -> None:
    tone(tmp_path / "high.wav", rate=96000, channels=2)
    clips = Clips(read_clips(str(tmp_path)), RATE, bool, 30)
    assert clips[0].shape == (round(0.7 * RATE),)


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_a_file_that_was_cut_off_is_found(tmp_path: Path, kind: str) -> None:
    path = tone(tmp_path / f"a.{kind}")
    assert audit(str(path)).seconds == pytest.approx(0.7)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cut off|cannot be read"):
        audit(str(path))
    with pytest.raises(UserError, match="starts at -1 s"):
        audit(str(tone(tmp_path / "b.wav")), start=-1.0)


def test_manifests_of_spreadsheets_are_read_or_told_what_to_do(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav")
    (tmp_path / "m.csv").write_text("path;text\na.wav;Straße\n", encoding="utf-8-sig")
    assert read_clips(str(tmp_path / "m.csv"))["text"].tolist() == ["Straße"]
    (tmp_path / "m.csv").write_text("path,text\na.wav,Straße\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"must be UTF-8, but byte 20 is not: save it as CSV UTF-8"):
        read_clips(str(tmp_path / "m.csv"))


def test_several_roots_are_corpora_of_one_table(tmp_path: Path) -> None:
    tone(tmp_path / "one" / "a.wav")
    tone(tmp_path / "two" / "a.wav")
    (tmp_path / "two" / "m.csv").write_text("path,text,corpus,language\na.wav,Uno,read,it\n")
    roots = [str(tmp_path / "one"), str(tmp_path / "two" / "m.csv")]
    table = read_clips(roots)
    assert table["corpus"].tolist() == [roots[0], "read"] and table["text"].tolist() == ["", "Uno"]
    assert table["name"].nunique() == 2 and all(Path(path).is_file() for path in table["path"])
    with pytest.raises(UserError, match="at least one folder"):
        read_clips([])


def test_files_are_judged_by_what_they_hold(tmp_path: Path) -> None:
    found = audit(str(tone(tmp_path / "loud.wav", gain=3.0, channels=2)))
    assert found.seconds == pytest.approx(0.7) and (found.sample_rate, found.channels) == (RATE, 2)
    assert 0.5 < found.clipped < 0.9
    assert audit(str(tmp_path / "loud.wav"), 0.2, 0.5).seconds == pytest.approx(0.3)
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan] * 3000), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "one.wav", np.array([0.5]), RATE)
    soundfile.write(tmp_path / "empty.wav", np.array([]), RATE)
    tone(tmp_path / "silent.wav", gain=0.0)
    (tmp_path / "broken.flac").write_bytes(b"fLaC, and no more")
    for name, reason in {
        "nan.wav": "no numbers", "one.wav": "holds 1 samples", "empty.wav": "holds 0 samples",
        "silent.wav": "is silent", "broken.flac": "cannot be read", "missing.wav": "no such file",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=reason):
            audit(str(tmp_path / name))


def test_a_file_that_was_cut_off_is_told(tmp_path: Path) -> None:
    whole = tone(tmp_path / "a.flac", seconds=5).read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut off|cannot be read"):
        audit(str(tmp_path / "a.flac"))


def test_the_command_writes_a_manifest_that_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for index in range(5):
        tone(tmp_path / "here" / f"{index}.wav", seconds=0.5 + index / 10)
        tone(tmp_path / "there" / f"{index}.mp3")
    tone(tmp_path / "there" / "quiet.wav", gain=0)
    assert main(["manifest", "here", "there", "--output", "all.csv"]) == 0
    told = capsys.readouterr().out
    assert "10 clips" in told and "1 set aside" in told and "there/quiet.wav: is silent" in told
    table = pd.read_csv("all.csv")
    assert set(table) == {"path", "corpus", "seconds", "sample_rate", "channels", "clipped"}
    assert table["seconds"][:5].tolist() == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9])
    assert pd.read_csv("all-set-aside.csv")["reason"].tolist() == ["is silent"]
    data = Audio("all.csv", rate=RATE)
    data.setup()
    assert sum(len(data.indices(split)) for split in ("train", "val", "test")) == 10


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tone(tmp_path / "quiet.wav", gain=0)
    assert main(["manifest", str(tmp_path), "--output", str(tmp_path / "m.csv")]) == 2
    assert "none of the 1 audio files can be used" in capsys.readouterr().err
    assert main(["manifest", str(tmp_path), "--output", "m.txt"]) == 2
    assert "to end in .csv" in capsys.readouterr().err
    assert main(["manifest"]) == 2
    assert "needs DIR: folder of audio" in capsys.readouterr().err


def test_texts_become_words_of_letters() -> None:
    assert normalise("L\u2019operatore,  -- è\u00a0occupato (№ 3)!") == "l'operatore è occupato no 3"
    alphabet = alphabet_of(["due", "uno"])
    assert alphabet == ["d", "e", "n", "o", "u"] and encode("nod", alphabet).tolist() == [3, 4, 1]
    with pytest.raises(UserError, match="'tre' must be spelt in the alphabet 'denou', but has 'r'"):
        encode("tre", alphabet)
