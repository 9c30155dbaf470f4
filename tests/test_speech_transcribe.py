"""Words with their times: a model that learns tones as letters, decoded, aligned; and what is refused.

Each letter is a tone of its own and each space a rustle, so that texts and times are known exactly.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from triptych.cli import main
from triptych.tasks.config import merge
from triptych.tasks.fit import fit, run_stage
from triptych.tasks.run import load
from triptych.tasks.speech.clock import Clock
from triptych.tasks.speech.data import Audio
from triptych.tasks.speech.decode import Span, align, arpa_words, beam_decoder, greedy_decoder
from triptych.tasks.speech.emissions import Listener, Part, parts
from triptych.tasks.speech.phones import read_phones
from triptych.tasks.speech.textgrid import covering, write_textgrid
from triptych.tasks.speech.transcribe import error_rates, grid_names, transcribe
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.audio_waveform import WaveformFrames
from triptych.tokenizers.errors import UserError

RATE = 2000
LETTERS = "abcd"
LETTER, GAP, BETWEEN = 0.06, 0.02, 0.12  # seconds of a letter, after it, and between words
CONFIG = """
model:
  tokenizers:
    audio:
      class_path: triptych.tokenizers.audio_logmel.LogMelFrames
      init_args: {mels: 16, window: 50, hop: 20, stack: 1, positions: {kernel: 5, groups: 8}}
  encoder: {width: 32, depth: 1, heads: 2}
  objectives:
    ctc: {class_path: triptych.objectives.ctc.CTC}
  optimizer:
    lr: {start: 0.01, end: 0.0005, warmup: 0.1}
data:
  class_path: triptych.tasks.speech.data.Audio
  init_args: {path: PATH, rate: 2000, batch_seconds: 8.0, limits: {longest: 8.0}}
trainer: {max_epochs: 22, enable_progress_bar: false, logger: false}
"""


def rustle() -> np.ndarray[Any, Any]:
    """What lies between words."""
    sound = np.zeros(round(BETWEEN * RATE))
    middle = slice(len(sound) // 3, 2 * len(sound) // 3)
    sound[middle] = 0.2 * np.random.default_rng(1).standard_normal(len(sound) // 3)
    return sound


def say(text: str) -> tuple[np.ndarray[Any, Any], list[tuple[float, float]]]:
    """The waveform of a text, and where its letters lie (seconds)."""
    pieces, times, now = [np.zeros(round(0.05 * RATE))], [], 0.05
    for character in text:
        if character == " ":
            pieces.append(rustle())
            now += BETWEEN
            continue
        time = np.arange(round(LETTER * RATE)) / RATE
        pieces += [0.5 * np.sin(2 * np.pi * 180 * (LETTERS.index(character) + 1) * time)]
        pieces += [np.zeros(round(GAP * RATE))]
        times.append((now, now + LETTER))
        now += LETTER + GAP
    noise = np.random.default_rng(len(text)).standard_normal(sum(map(len, pieces)))
    return np.concatenate(pieces) + 0.003 * noise, times


def texts(count: int) -> list[str]:
    draw = np.random.default_rng(7)
    words = ["".join(draw.choice(list(LETTERS), draw.integers(1, 4))) for _ in range(3 * count)]
    return [" ".join(words[3 * i : 3 * i + draw.integers(1, 4)]) for i in range(count)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tones")
    rows = []
    for index, text in enumerate(texts(80)):
        soundfile.write(root / f"{index}.wav", say(text)[0], RATE)
        split = "train" if index < 64 else "val" if index < 68 else "test"
        rows.append({"path": f"{index}.wav", "text": text.upper() + ".", "split": split})
    pd.DataFrame(rows).to_csv(root / "manifest.csv", index=False)
    return root / "manifest.csv"


@pytest.fixture(scope="module")
def run(manifest: Path) -> str:
    file = manifest.parent / "tones.yaml"
    file.write_text(CONFIG.replace("PATH", str(manifest)))
    torch.manual_seed(0)
    return str(fit(merge([file]), output=str(manifest.parent / "run")))


def test_ctc_learns_to_read_held_out_tones(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--run", run]) == 0
    figures = {row["metric"]: row for row in json.loads(Path(run, "metrics.json").read_text())["transcribe"]}
    assert figures["CER"]["value"] < 0.05 and figures["WER"]["value"] < 0.15
    assert figures["CER"]["low"] <= figures["CER"]["value"] <= figures["CER"]["high"]
    assert "CER" in capsys.readouterr().out


def test_validation_hears_what_fit_heard(run: str) -> None:
    fitted = json.loads(Path(run, "metrics.json").read_text())["fit"]["val/loss"]
    run_stage("validate", run, {"trainer.enable_progress_bar": False})
    assert json.loads(Path(run, "metrics.json").read_text())["validate"]["val/loss"] == pytest.approx(fitted)


def test_what_cannot_be_decoded_has_no_transcript(run: str, tmp_path: Path) -> None:
    for index, text in enumerate(texts(3)):
        soundfile.write(tmp_path / f"{index}.flac", say(text)[0], RATE)
    whole = (tmp_path / "1.flac").read_bytes()
    (tmp_path / "1.flac").write_bytes(whole[: len(whole) // 2])
    out, figures = tmp_path / "new" / "said.csv", tmp_path / "told" / "said.json"
    command = ["transcribe", "--run", run, "--data.path", str(tmp_path)]
    assert main([*command, "--output", str(out), "--json", str(figures)]) == 0
    assert [Path(path).name for path in pd.read_csv(out)["path"]] == ["0.flac", "2.flac"]
    told = json.loads(figures.read_text())
    assert told["transcripts"] == 2 and [Path(name).name for name in told["set_aside"]] == ["1.flac"]


def test_transcripts_are_a_manifest(run: str, manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = manifest.parent / "said.csv"
    (manifest.parent / "broken.wav").write_bytes(b"RIFF")
    files = [str(manifest.parent / f"{name}.wav") for name in ("70", "71", "broken")]
    assert main(["transcribe", "--run", run, "--data.path", *files, "--output", str(out)]) == 0
    assert "broken.wav: cannot be read" in capsys.readouterr().out
    table = pd.read_csv(out)
    assert table["path"].tolist() == ["70.wav", "71.wav"] and "reference" not in table
    assert table["text"].tolist() == texts(80)[70:72] and (table["confidence"] > 0.5).all()
    for text, words in zip(table["text"], table["words"], strict=True):
        found = json.loads(words)
        assert [word for word, *_ in found] == text.split()
        assert all(start < end for _, start, end, _ in found)
    listed = main(["transcribe", "--run", run, "--data.path", str(out), "--json", str(out) + ".json"])
    assert listed == 0  # pseudo-labels: what it wrote is a manifest with texts
    assert json.loads(Path(str(out) + ".json").read_text())["transcribe"][0]["value"] == 0


def test_a_round_of_pseudo_labels(run: str, manifest: Path, tmp_path: Path) -> None:
    """What has no text is transcribed, and the next round learns from it, but is not measured by it."""
    (tmp_path / "talk").mkdir()
    spoken = ["ab cd", "dd a", "cab", "bad cab", "d c b a"]
    for index, text in enumerate(spoken):
        soundfile.write(tmp_path / "talk" / f"{index}.wav", say(text)[0], RATE)
    pseudo = tmp_path / "pseudo.csv"
    words = ["transcribe", "--run", run, "--data.path", str(tmp_path / "talk"), "--output", str(pseudo)]
    assert main(words) == 0
    told = pd.read_csv(pseudo)
    assert set(told["split"]) == {"train"} and told["text"].notna().all()
    right = sum(one == other for one, other in zip(told["text"], spoken, strict=True))
    assert right >= 3
    output, both = tmp_path / "round", f"[{manifest}, {pseudo}]"
    again = ["fit", "--config", str(Path(run) / "config.yaml"), "--init", run, "--data.path", both]
    assert main([*again, "--output", str(output), "--trainer.max_epochs", "1"]) == 0
    data = load(str(output)).data()
    assert isinstance(data, Audio)
    of_round = {split: set(data.names(split)) for split in ("train", "val", "test")}
    names = {str(tmp_path / "talk" / f"{index}.wav") for index in range(5)}
    assert names <= of_round["train"] and not names & (of_round["val"] | of_round["test"])


def test_times_are_those_of_the_letters(run: str, manifest: Path) -> None:
    out = manifest.parent / "aligned"
    plot = manifest.parent / "alignment.png"
    assert main(["align", "--run", run, "--output", str(out), "--plot", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    words = pd.read_csv(out / "words.csv")
    errors = []
    for index in range(68, 80):
        said, (_, times) = (
            words[words["path"] == str(manifest.parent / f"{index}.wav")],
            say(texts(80)[index]),
        )
        starts = [place - text[:place].count(" ") for place, text in firsts(texts(80)[index])]
        assert said["text"].tolist() == texts(80)[index].split()
        errors += [abs(one - times[start][0]) for one, start in zip(said["start"], starts, strict=True)]
    assert np.median(errors) < 0.04
    grids = sorted(path.name for path in out.glob("*.TextGrid"))
    assert len(grids) == 12 and (out / grids[0]).read_text().count('class = "IntervalTier"') == 2


def test_a_file_of_segments_has_one_textgrid_in_its_own_times(run: str, tmp_path: Path) -> None:
    """Two files of equal name, each of two segments with silence around; `--phones` finds their grids."""
    spoken, rows = {"it": ("ab", "cad"), "ru": ("dd", "bc")}, []
    truth: dict[str, list[float]] = {}
    for folder, texts_of in spoken.items():
        (tmp_path / "audio" / folder).mkdir(parents=True)
        begin, pieces, truth[folder] = 1.0, [np.zeros(RATE)], []
        for text in texts_of:
            sound, times = say(text)
            end = begin + len(sound) / RATE
            rows.append({"path": f"audio/{folder}/a.wav", "start": begin, "end": end, "text": text})
            truth[folder].append(begin + times[0][0])
            pieces += [sound, np.zeros(RATE)]
            begin = end + 1
        soundfile.write(tmp_path / "audio" / folder / "a.wav", np.concatenate(pieces), RATE)
    pd.DataFrame(rows[::-1]).to_csv(tmp_path / "segments.csv", index=False)
    out = tmp_path / "aligned"
    assert (
        main(["align", "--run", run, "--data.path", str(tmp_path / "segments.csv"), "--output", str(out)])
        == 0
    )
    grids = {path.relative_to(out).as_posix() for path in out.rglob("*.TextGrid")}
    words = pd.read_csv(out / "words.csv")
    assert grids == set(words["textgrid"]) == {"it/a.TextGrid", "ru/a.TextGrid"}
    phones = read_phones(str(out), "words")
    for folder, texts_of in spoken.items():
        audio = tmp_path / "audio" / folder / "a.wav"
        found, listed = phones.of(str(audio)), words[words["path"] == str(audio)].sort_values("start")
        assert [word.label for word in found] == listed["text"].tolist() == list(texts_of)
        assert [word.start for word in found] == pytest.approx(listed["start"].tolist(), abs=1e-3)
        assert [word.start for word in found] == pytest.approx(truth[folder], abs=0.1)
        grid = (out / folder / "a.TextGrid").read_text()
        assert f"xmin = 0\nxmax = {soundfile.info(audio).duration:.4f}\n" in grid


def test_textgrids_are_called_as_their_files() -> None:
    assert grid_names(["/a/x.wav"]) == {"/a/x.wav": "x.TextGrid"}
    assert grid_names(["/a/b/x.wav", "/a/x.v2.wav"]) == {
        "/a/b/x.wav": "b/x.TextGrid", "/a/x.v2.wav": "x.v2.TextGrid"
    }  # fmt: skip
    assert grid_names(["/a/x.flac", "/a/x.wav"]) == {
        "/a/x.flac": "x.flac.TextGrid", "/a/x.wav": "x.wav.TextGrid"
    }  # fmt: skip


def firsts(text: str) -> list[tuple[int, str]]:
    """Where each word starts in a text."""
    return [(i, text) for i, c in enumerate(text) if c != " " and (i == 0 or text[i - 1] == " ")]


def test_long_audio_is_heard_in_overlapping_chunks(run: str, manifest: Path) -> None:
    said = [text for text in texts(80) if len(text) > 5][:14]
    waves = [np.concatenate([say(text)[0], rustle()]) for text in said]
    soundfile.write(manifest.parent / "long.wav", np.concatenate(waves), RATE)
    listener = Listener(load(run), chunk=1.5, overlap=0.5)
    clips = listener.clips([str(manifest.parent / "long.wav")])
    found = transcribe(listener, clips, [0])
    (rates,) = [row for row in error_rates([" ".join(said)], list(found["text"])) if row.metric == "CER"]
    assert clips.samples[0] / RATE > 8 and rates.value < 0.1
    (whole,) = listener.listen([clips[0]])
    assert len(whole) == listener.tokenizer.num_tokens(clips[0].shape)


@pytest.mark.parametrize("frames", [7, 30, 31, 50, 53, 211])
def test_chunks_cover_every_frame_once_away_from_their_ends(frames: int) -> None:
    cut = parts(frames, 30, 8)
    assert [frame for part in cut for frame in range(part.begin, part.end)] == list(range(frames))
    assert cut[0].first == 0 and cut[-1].last == frames
    for one, other in pairwise(cut):
        assert one.last - other.first >= 8 and one.end <= one.last - 4 and other.begin >= other.first + 4
    assert parts(30, 30, 8) == [Part(0, 30, 0, 30)]


def test_chunks_of_a_front_end_without_context_are_the_whole(run: str, manifest: Path) -> None:
    """The frames of a chunk are the very samples of the whole's frames."""
    listener = Listener(load(run), chunk=1.0, overlap=0.3)
    wave = torch.randn(7 * RATE + 13)
    listener._predict = lambda chunks: [chunk.unfold(0, 50, 20) for chunk in chunks]  # type: ignore[method-assign]
    assert torch.equal(listener.listen([wave])[0], wave.unfold(0, 50, 20))


@pytest.mark.parametrize(
    ("tokenizer", "window", "hop"),
    [(WaveformFrames(), 400, 320), (LogMelFrames(window=25, hop=20, stack=3), 65, 60)],
)
def test_the_clock_is_found_from_the_number_of_frames(tokenizer: Any, window: int, hop: int) -> None:
    clock = Clock.of(tokenizer, 16000)
    assert (clock.window, clock.hop) == (window, hop)
    assert tokenizer.num_tokens((clock.samples(7),)) == 7 == tokenizer.num_tokens((clock.samples(8) - 1,))
    assert clock.begins(3) + hop / 2 / 16000 == pytest.approx((3 * hop + window / 2) / 16000)


# Decoding

CLOCK = Clock(20, 10, 1000)


def emissions(path: str, sure: float = 8.0) -> torch.Tensor:
    """A letter a frame, `.` for the blank, over the alphabet ` ab`."""
    return (
        sure * torch.nn.functional.one_hot(torch.tensor([". ab".index(c) for c in path]), 4).float()
    ).log_softmax(1)


def test_greedy_decoding_has_words_times_and_confidence() -> None:
    found = greedy_decoder(" ab", CLOCK)(emissions(".aa.a. .bb"))
    assert found.text == "aa b" and [letter.text for letter in found.letters] == ["a", "a", "b"]
    assert found.words[0].start == pytest.approx(0.005 + 0.01) and found.words[0].end == pytest.approx(0.055)
    p = float(torch.tensor(8.0).exp() / (torch.tensor(8.0).exp() + 3))
    assert found.confidence == pytest.approx(p, rel=1e-5)
    assert greedy_decoder(" ab", CLOCK)(emissions("....")).text == ""


def test_a_known_text_is_laid_along_the_frames() -> None:
    blurred = emissions(".aa.b..b", sure=3.0)
    found = align(blurred, "abb", " ab", CLOCK)
    assert found.text == "abb"
    assert [letter.start for letter in found.letters] == pytest.approx([0.015, 0.045, 0.075])
    with pytest.raises(UserError, match="'aaaaa' needs 9 frames, but the recording has 8"):
        align(blurred, "aaaaa", " ab", CLOCK)
    with pytest.raises(UserError, match="but has 'c'"):
        align(blurred, "abc", " ab", CLOCK)


ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-9\t<unk>
0\t<s>\t0
-1\t</s>
-0.1\tab\t0
-3\tba\t0

\\2-grams:
-0.1\t<s> ab
-3\t<s> ba

\\end\\
"""


def test_beam_search_with_a_language_model(tmp_path: Path) -> None:
    pytest.importorskip("flashlight")
    (tmp_path / "words.arpa").write_text(ARPA)
    assert arpa_words(tmp_path / "words.arpa") == ["ab", "ba"]
    doubtful = torch.tensor([[0.0, 0, 2.0, 2.1], [5.0, 0, 0, 0], [0.0, 0, 2.1, 2.0]]).log_softmax(1)
    assert greedy_decoder(" ab", CLOCK)(doubtful).text == "ba"
    assert beam_decoder(" ab", CLOCK, 20, None, 1.0)(doubtful).text == "ba"
    assert beam_decoder(" ab", CLOCK, 20, str(tmp_path / "words.arpa"), 2.0)(doubtful).text == "ab"
    (tmp_path / "not.arpa").write_text("nothing")
    with pytest.raises(UserError, match=r"as an ARPA file, but '.*not.arpa' is none"):
        beam_decoder(" ab", CLOCK, 20, str(tmp_path / "not.arpa"), 2.0)


def test_beam_search_without_its_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchaudio.models.decoder", None)
    with pytest.raises(UserError, match=r"needs flashlight-text: pip install 'triptych\[beam\]'"):
        beam_decoder(" ab", CLOCK, 20, None, 1.0)


def test_error_rates_are_jiwers_over_texts_that_are_not_empty() -> None:
    word, character = error_rates(["Uno due.", "", "tre"], ["uno", "quattro", "tra"])
    assert (word.metric, word.value) == ("WER", pytest.approx(2 / 3))
    assert (character.metric, character.value) == ("CER", pytest.approx(5 / 10))
    assert error_rates(["", ""], ["a", "b"]) == []


def test_textgrids_cover_the_recording(tmp_path: Path) -> None:
    spans = [Span("uno", 0.1, 0.4, 1), Span('d"e', 0.35, 0.6, 1), Span("tre", 0.6, 2.0, 1)]
    assert covering(spans, 1.0) == [
        (0.0, 0.1, ""), (0.1, 0.4, "uno"), (0.4, 0.6, 'd"e'), (0.6, 1.0, "tre")
    ]  # fmt: skip
    assert covering([], 0.5) == [(0.0, 0.5, "")]
    write_textgrid(tmp_path / "a.TextGrid", 1.0, {"words": spans})
    assert 'text = "d""e"' in (tmp_path / "a.TextGrid").read_text()


def test_what_cannot_be_transcribed_is_refused(
    run: str, manifest: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["align", "--run", run, "--data.path", str(manifest.parent / "70.wav")]) == 2
    assert "a manifest with a column `text`" in capsys.readouterr().err
    assert main(["transcribe", "--run", run, "--output", "x.txt"]) == 2
    assert "to end in .csv" in capsys.readouterr().err
    assert main(["transcribe", "--run", run, "--chunk", "2"]) == 2
    assert "longer than twice the overlap of 4 s" in capsys.readouterr().err
    (manifest.parent / "odd.csv").write_text("path,text\n70.wav,xyz\n")
    assert main(["align", "--run", run, "--data.path", str(manifest.parent / "odd.csv")]) == 2
    assert "none of the 1 texts can be aligned" in capsys.readouterr().err
