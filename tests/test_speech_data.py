"""Audio as users have it: folders, manifests, bad files; segments, batches of seconds, masks, splits."""

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from triptych.objectives.classification import UNLABELLED
from triptych.tasks.data import PLAIN, EpochSampler, generator
from triptych.tasks.speech.augment import ChannelMask
from triptych.tasks.speech.clips import Clips
from triptych.tasks.speech.data import Audio, Columns, Limits
from triptych.tasks.speech.manifest import SAMPLES, read_clips, split_by_hash
from triptych.tasks.speech.masks import SpanMask
from triptych.tasks.speech.sampling import SecondsSampler
from triptych.tasks.speech.segments import Segments
from triptych.tasks.speech.views import AudioView
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.errors import UserError

RATE = 1000


def tone(path: Path, seconds: float, rate: int = RATE, hz: float = 50.0, channels: int = 1) -> Path:
    """A sine of amplitude .5 as a 16-bit file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    return path


def folder(root: Path, count: int = 11) -> Path:
    """Clips of .3 to 1.3 s; clip i is a tone of 20 + i Hz."""
    for index in range(count):
        tone(root / f"{index:02}.wav", 0.3 + 0.1 * index, hz=20 + index)
    return root


def audio(path: Path | str, **options: object) -> Audio:
    data = Audio(str(path), **{"rate": RATE, **options})
    data.attach({"audio": LogMelFrames(window=25, hop=20, stack=1)})
    data.setup()
    return data


def manifest(root: Path, **columns: list[object]) -> Path:
    names = [tone(root / "audio" / f"{i}.wav", 0.5, hz=20 + i).relative_to(root).as_posix() for i in range(6)]
    pd.DataFrame({"path": names, **columns}).to_csv(root / "manifest.csv", index=False)
    return root / "manifest.csv"


# Reading


def test_a_folder_is_read_in_any_format_and_depth(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 0.5)
    tone(tmp_path / "deep" / "b.flac", 0.5)
    tone(tmp_path / "deep" / "C.OGG", 0.5, rate=8000)
    (tmp_path / "notes.txt").write_text("not audio")
    assert read_clips(str(tmp_path))["name"].tolist() == ["a.wav", "deep/C.OGG", "deep/b.flac"]
    assert len(audio(tmp_path).clips) == 3


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_manifest_gives_the_same_table(tmp_path: Path, kind: str) -> None:
    table = pd.DataFrame(
        {
            "path": ["x/a.wav", "x/b.wav"],
            "text": ["null", "due, tre"],
            "end": [0.5, None],
            "speaker": ["7", ""],
        }
    )
    file = tmp_path / f"m.{kind}"
    match kind:
        case "parquet":
            table.to_parquet(file)
        case "jsonl":
            table.to_json(file, orient="records", lines=True)
        case _:
            table.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",")
    clips = read_clips(str(file))
    assert clips["path"].tolist() == [str(tmp_path / "x/a.wav"), str(tmp_path / "x/b.wav")]
    assert clips["text"].tolist() == ["null", "due, tre"] and clips["speaker"].tolist() == ["7", ""]
    assert clips["start"].tolist() == [0, 0] and clips["end"][0] == 0.5 and np.isnan(clips["end"][1])


def test_any_rate_and_any_channels_give_one_rate(tmp_path: Path) -> None:
    tone(tmp_path / "a.wav", 0.5, rate=4000, channels=2)
    tone(tmp_path / "b.wav", 0.5, rate=RATE)
    clips = Clips(read_clips(str(tmp_path)), RATE, bool, 30)
    resampled, same = clips[0], clips[1]
    assert resampled.shape == same.shape == (500,) and resampled.dtype == torch.float32
    middle = slice(50, 450)  # the resampling filter rings at the ends
    assert (resampled[middle] - same[middle]).abs().max() < 0.01


def test_start_and_end_cut_a_clip_out(tmp_path: Path) -> None:
    ramp = np.arange(1000) / 2000
    soundfile.write(tmp_path / "ramp.wav", ramp, RATE, subtype="FLOAT")
    (tmp_path / "m.csv").write_text("path,start,end\nramp.wav,0.1,0.3\nramp.wav,0.25,\n")
    clips = Clips(read_clips(str(tmp_path / "m.csv")), RATE, bool, 30)
    np.testing.assert_allclose(clips[0], ramp[100:300], atol=1e-6)
    np.testing.assert_allclose(clips[1], ramp[250:], atol=1e-6)


def test_long_clips_are_cut_into_equal_pieces_without_their_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tone(tmp_path / "long.wav", 2.5)
    tone(tmp_path / "short.wav", 0.5)
    (tmp_path / "m.csv").write_text("path,text\nlong.wav,uno\nshort.wav,due\n")
    with caplog.at_level(logging.WARNING, "triptych"):
        clips = Clips(read_clips(str(tmp_path / "m.csv")), RATE, bool, 1.0)
    assert (
        "left out the texts of 1 clips longer than 1 s (data.limits.longest), such as long.wav" in caplog.text
    )
    assert clips.samples == [833, 833, 833, 500]
    assert clips.table["text"].tolist() == ["", "", "", "due"]
    whole, _ = soundfile.read(tmp_path / "long.wav", dtype="float32")
    np.testing.assert_allclose(torch.cat([clips[0], clips[1]])[:1600], whole[:1600], atol=1e-6)


def test_weights_of_another_rate_are_refused(tmp_path: Path) -> None:
    data = Audio(str(folder(tmp_path)), rate=8000)
    data.inherit({"audio": {"rate": 8000, "normalise": True}})
    assert data.normalise
    with pytest.raises(UserError, match="must be 16000 Hz, that of the audio which the weights were trained"):
        data.inherit({"audio": {"rate": 16000}})


def test_normalised_clips_have_mean_0_and_variance_1(tmp_path: Path) -> None:
    clips = Clips(read_clips(str(folder(tmp_path))), RATE, bool, 30, normalise=True)
    for index in range(len(clips)):
        assert abs(clips[index].mean()) < 1e-5 and abs(clips[index].std(correction=0) - 1) < 1e-3


def test_clips_are_decoded_once_while_there_is_room(tmp_path: Path) -> None:
    table = read_clips(str(folder(tmp_path, 3)))
    roomy, tight = (Clips(table, RATE, bool, 30, cache=gigabytes) for gigabytes in (1, 0))
    assert roomy[1] is roomy[1] and tight[1] is not tight[1] and torch.equal(roomy[1], tight[1])


def test_the_shipped_samples() -> None:
    data = audio("samples", rate=8000, columns=Columns("language", "language", "prompt"))
    assert len(data.clips) == 910 and not data.clips.set_aside
    facts = data.facts()["audio"]
    assert (
        facts["rate"] == 8000
        and not facts["normalise"]
        and facts["classes"] == ["it", "ru"]
        and {*"aàzая '"} < {*facts["alphabet"]}
    )
    assert data.table["seconds"].sum() == pytest.approx(pd.read_csv(SAMPLES)["seconds"].sum(), abs=1)
    sides = data.table.groupby("prompt")["split"].nunique()
    assert sides.max() == 1  # the same prompt in both languages
    share = data.table["split"].value_counts(normalize=True)
    assert 0.7 < share["train"] < 0.8 and 0.06 < share["val"] < 0.14 and 0.1 < share["test"] < 0.2


# Files and options that are wrong


def test_bad_files_are_set_aside_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder(tmp_path)
    (tmp_path / "broken.wav").write_bytes(b"RIFF but no more")
    (tmp_path / "empty.flac").touch()
    tone(tmp_path / "short.wav", 0.01)
    with caplog.at_level(logging.WARNING, "triptych"):
        data = audio(tmp_path, limits=Limits(unusable=0.3))
    assert len(data.clips) == 11 and set(data.clips.set_aside) == {"broken.wav", "empty.flac", "short.wav"}
    assert "set aside short.wav: 0.010 s is too short for a single frame" in caplog.text


def test_a_file_that_breaks_later_is_silence_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips = Clips(read_clips(str(folder(tmp_path))), RATE, bool, 30, cache=0)
    (tmp_path / "02.wav").write_bytes(b"overwritten")
    with caplog.at_level(logging.WARNING, "triptych"):
        assert torch.equal(clips[2], torch.zeros(500)) and torch.equal(clips[2], torch.zeros(500))
    assert caplog.text.count("set aside 02.wav") == 1 and list(clips.set_aside) == ["02.wav"]


def refused(sentence: str, path: Path | str, **options: object) -> None:
    with pytest.raises(UserError, match=sentence):
        audio(path, **options).samples("train")


def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path: Path) -> None:
    refused("'nowhere' does not exist", "nowhere")
    (tmp_path / "empty").mkdir()
    refused("the folder '.*empty' has none", tmp_path / "empty")
    (tmp_path / "m.txt").touch()
    refused(r"must end in .csv, .tsv, .jsonl, .parquet, but is '.*m.txt'", tmp_path / "m.txt")
    (tmp_path / "m.csv").write_text("file,text\na.wav,uno\n")
    refused("in a column `path`, but has only file, text", tmp_path / "m.csv")
    (tmp_path / "m.csv").write_text("path,text\n")
    refused("in a column `path`, but has no rows", tmp_path / "m.csv")
    (tmp_path / "m.jsonl").write_text("not json\n")
    refused("must be a table, but cannot be read", tmp_path / "m.jsonl")
    (tmp_path / "m.csv").write_text("path\na.wav\nb.wav\n")
    refused(
        "at most 10% of the 2 clips .* but 2 are, the first being a.wav: no such file",
        tmp_path / "m.csv",
    )


def test_splits_that_cannot_be_are_refused(tmp_path: Path) -> None:
    refused("must hold clips, but .* has none in it: give at least 3 clips", folder(tmp_path / "two", 2))
    refused(
        "must hold train, val, test, but has 'dev'",
        manifest(tmp_path / "dev", split=["train"] * 5 + ["dev"]),
    )
    refused("the split 'train' must hold clips", manifest(tmp_path / "all", split=["test"] * 6))


def test_a_batch_must_hold_a_sample(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"must hold a sample of 8 s, but is 4: raise it, or lower data.segment"
    ):
        Audio(str(tmp_path), segment=8.0, batch_seconds=4.0)


# Splits


def test_splits_come_from_folders_or_the_column(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        folder(tmp_path / "folders" / split, count)
    data = audio(tmp_path / "folders")
    assert data.names("val") == ["val/00.wav"] and len(data.indices("train")) == 3
    data = audio(manifest(tmp_path / "column", split=["test", "train", "train", "val", "test", "train"]))
    assert data.indices("test") == [0, 4] and data.names("val") == ["audio/3.wav"]


def test_the_hash_keeps_groups_together_and_its_shares() -> None:
    keys = [f"prompt {index}" for index in range(2000)]
    split = split_by_hash(keys + keys[::-1], 0.1, 0.2)
    assert split[:2000] == split[2000:][::-1]
    share = Counter(split[:2000])
    assert abs(share["val"] / 2000 - 0.1) < 0.02 and abs(share["test"] / 2000 - 0.2) < 0.03
    assert split_by_hash(keys[:7], 0.1, 0.2) == [
        split_by_hash(keys[:7][::-1], 0.1, 0.2)[6 - i] for i in range(7)
    ]
    assert set(split_by_hash(["a", "b", "c"], 0.1, 0.1)) == {"train", "val", "test"}
    assert split_by_hash(["a", "b", "a"], 0.1, 0.1) == ["test"] * 3


def test_two_clips_are_enough_to_embed(tmp_path: Path) -> None:
    data = audio(folder(tmp_path / "two", 2))
    assert [len(data.names(split)) for split in ("train", "val", "test")] == [0, 0, 2]
    assert sum(len(batch["plain"]) for batch in data.plain("test")) == 2


# Segments, batches and views


def segments(tmp_path: Path, length: int = 700) -> Segments:
    clips = Clips(read_clips(str(folder(tmp_path))), RATE, bool, 30)
    return Segments(clips, {"a": [0, 2, 4, 6, 8, 10], "b": [1, 3, 5], "short": [7]}, length, seed=3)


def test_segments_are_stretches_of_one_voice_end_to_end(tmp_path: Path) -> None:
    cut = segments(tmp_path)
    totals = {"a": 4800, "b": 1800, "short": 1000}
    assert cut.lengths == [700] * (4800 // 700 + 1800 // 700 + 1)
    for epoch in (0, 5):
        for voice, indices in cut.voices.items():
            drawn = [cut.draw(epoch, i).waveform for i, owner in enumerate(cut.owner) if owner == voice]
            order = cut._laid_out(epoch)[voice][0]
            assert sorted(order) == sorted(indices)
            stream = torch.cat([cut.clips[index] for index in order])
            assert len(stream) == totals[voice]
            torch.testing.assert_close(torch.cat(drawn), stream[: 700 * len(drawn)])


def test_segments_are_drawn_anew_each_epoch_and_the_same_again(tmp_path: Path) -> None:
    cut, again = segments(tmp_path), segments(tmp_path)
    first = [cut.draw(epoch, 2).waveform for epoch in range(4)]
    assert not all(torch.equal(first[0], other) for other in first[1:])
    for epoch in (3, 1, 0):  # in any order
        assert torch.equal(again.draw(epoch, 2).waveform, first[epoch])


def test_a_voice_with_less_than_a_segment_gives_all_it_has(tmp_path: Path) -> None:
    cut = segments(tmp_path, length=1500)
    assert cut.lengths == [1500, 1500, 1500, 1500, 1000]
    assert torch.equal(cut.draw(0, 4).waveform, cut.clips[7])


def test_batches_hold_about_equal_seconds_and_their_number_is_fixed() -> None:
    lengths = (torch.rand(83) * 5 + 0.1).tolist()
    sampler = SecondsSampler(EpochSampler(83, seed=1), lengths, 12.0)
    mean = sum(lengths) / len(sampler)
    assert 12.0 - 12.0 / len(sampler) < mean <= 12.0
    for epoch in range(20):
        sampler.sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(index for batch in batches for _, index in batch) == list(range(83))
        assert all(key[0] == epoch for batch in batches for key in batch)
        assert all(abs(sum(lengths[i] for _, i in batch) - mean) <= max(lengths) for batch in batches)


def test_views_carry_masks_for_the_tokenizers_frames(tmp_path: Path) -> None:
    views = {"train": AudioView(SpanMask(0.5, 4, 1)), "whole": AudioView()}
    data = audio(folder(tmp_path), views=views, batch_seconds=31)
    assert data.views() == {"train": "audio", "whole": "audio"}
    batch = next(iter(data.train_dataloader()))
    view = batch["train"]
    frames = [(len(waveform) - 25) // 20 + 1 for waveform in view.data]
    assert view.masked.shape == (sum(frames),) and view.masked.dtype == torch.bool and view.rate == RATE
    assert batch["whole"].masked is None and batch["whole"].data[0] is view.data[0]
    assert all(part.any() for part in view.masked.split(frames))
    item = data.samples("train")[(4, 2)]
    expected = views["train"].mask.draw(len(item.looks["train"].masked), generator(0, 4, 2, "train"))
    assert torch.equal(item.looks["train"].masked, expected)


def test_held_out_clips_are_heard_whole_where_only_labels_teach(tmp_path: Path) -> None:
    data = audio(folder(tmp_path), views={"train": AudioView(SpanMask(0.5, 4, 1))}, batch_seconds=31)
    assert next(iter(data.val_dataloader()))["train"].masked is not None
    data.supervise()
    assert next(iter(data.val_dataloader()))["train"].masked is None
    assert next(iter(data.train_dataloader()))["train"].masked is not None


def test_workers_change_nothing(tmp_path: Path) -> None:
    drawn = []
    for workers in (0, 2):
        data = audio(
            folder(tmp_path), views={"train": AudioView(SpanMask(spans=1))}, segment=0.7, batch_seconds=1.5,
            workers=workers,
        )  # fmt: skip
        drawn.append([batch["train"] for batch in data.train_dataloader()])
    for one, other in zip(*drawn, strict=True):
        assert one.ids == other.ids and torch.equal(one.masked, other.masked)
        assert all(torch.equal(a, b) for a, b in zip(one.data, other.data, strict=True))


def test_the_plain_view_gives_every_clip_with_its_class(tmp_path: Path) -> None:
    file = manifest(tmp_path, language=["it", "ru", "it", "it", "ru", "ru"], split=["test"] * 5 + ["train"])
    data = audio(file, columns=Columns(label="language"), segment=0.3, batch_seconds=1.0)
    batches = list(data.plain("test"))
    assert all(set(batch) == {PLAIN} and batch[PLAIN].masked is None for batch in batches)
    assert sum((batch[PLAIN].ids for batch in batches), ()) == tuple(range(5))
    assert torch.cat([batch[PLAIN].targets["label"] for batch in batches]).tolist() == [0, 1, 0, 0, 1]
    assert data.names("test") == [f"audio/{i}.wav" for i in range(5)]


# Masks


def test_half_of_a_long_utterance_is_masked() -> None:
    """wav2vec 2.0, section 4.2: .065 starts of spans of 10 mask 49 % of the frames, 14.7 on average."""
    masks = [SpanMask().draw(1500, torch.Generator().manual_seed(i)) for i in range(60)]
    share = torch.stack(masks).float().mean()
    assert share == pytest.approx(0.49, abs=0.01)
    changes = torch.stack(masks).int().diff(dim=1)
    mean_length = torch.stack(masks).sum() / (changes == 1).sum()
    assert mean_length == pytest.approx(14.7, abs=0.8)


def test_masks_keep_their_expectation_their_minimum_and_their_bounds() -> None:
    spans = [int(SpanMask(0.3, 1, 0).draw(7, torch.Generator().manual_seed(i)).sum()) for i in range(1500)]
    assert set(spans) == {2, 3} and np.mean(spans) == pytest.approx(2.1, abs=0.04)
    assert all(SpanMask(0.01, 3, 2).draw(50, torch.Generator().manual_seed(i)).sum() >= 4 for i in range(50))
    reached = torch.stack(
        [SpanMask(0.3, 3, 1).draw(11, torch.Generator().manual_seed(i)) for i in range(500)]
    )
    assert reached.any(0).all()
    assert SpanMask().draw(4, torch.Generator()).all()  # shorter than a span


def test_values_that_are_no_numbers_are_set_aside_when_heard(tmp_path: Path) -> None:
    folder(tmp_path)
    wave = np.zeros(700)
    wave[100] = np.nan
    soundfile.write(tmp_path / "02.wav", wave, RATE, subtype="FLOAT")
    data = audio(tmp_path)
    assert torch.equal(data.clips[2], torch.zeros(700)) and data.clips.failed == {2}
    assert data.clips.set_aside == {"02.wav": "holds values that are no numbers"}


def test_silence_in_place_of_a_clip_has_neither_text_nor_label(tmp_path: Path) -> None:
    path = manifest(tmp_path, text=["uno"] * 6, label=["x", "y"] * 3, split=["train"] * 6)
    data = audio(path)
    (tmp_path / "audio" / "1.wav").write_bytes(b"overwritten")
    waveforms = data.samples("train").waveforms
    assert [waveforms.draw(0, index).label for index in range(3)] == [0, UNLABELLED, 0]
    assert [len(waveforms.draw(0, index).text) for index in range(3)] == [3, 0, 3]


def test_an_empty_label_is_no_class(tmp_path: Path) -> None:
    data = audio(manifest(tmp_path, label=["x", "", "y", "", "x", "y"], split=["train"] * 6))
    assert data.classes == ["x", "y"]
    assert [data.samples("train").waveforms.draw(0, index).label for index in range(4)] == [0, -1, 1, -1]


def test_times_are_seconds_within_the_file(tmp_path: Path) -> None:
    starts, ends = ["", "-1", "0.1", "0.2", "", ""], ["", "0.4", "99", "0.9", "", ""]
    data = audio(manifest(tmp_path, start=starts, end=ends), limits=Limits(unusable=0.5))
    assert data.clips.set_aside == {
        "audio/1.wav from -1 s": "starts at -1 s, before its file",
        "audio/2.wav from 0.1 s": "ends at 99 s, but its file at 0.50 s",
    }
    assert data.table["end"].tolist() == [0.5, 0.5, 0.5, 0.5]  # what a manifest rounded is cut to the file
    for wrong in ("0:01", "1,5", "abc"):
        refused(
            f"such as 1.5, in the column 'start' of .* but row 2 holds '{wrong}'",
            manifest(tmp_path, start=["", wrong, "", "", "", ""]),
        )


def test_stretches_of_one_bad_file_count_each(tmp_path: Path) -> None:
    path = manifest(tmp_path, start=[0.0] * 6, end=[0.4] * 6)
    table = pd.read_csv(path)
    lost = pd.DataFrame({"path": "lost.wav", "start": [0, 1, 2], "end": [1, 2, 3]})
    pd.concat([table, lost]).to_csv(path, index=False)
    refused("at most 30% of the 9 clips may be unusable, but 3 are", path, limits=Limits(unusable=0.3))


def test_a_clip_keeps_its_split_however_its_root_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(tmp_path / "rec", 23)
    (tmp_path / "more.csv").write_text("path\n")
    manifest(tmp_path)
    monkeypatch.chdir(tmp_path)
    alone = audio("rec").table["split"].tolist()
    for roots in (["rec"], [str(tmp_path / "rec")], ["rec", "manifest.csv"]):
        data = Audio(roots, rate=RATE)
        data.setup()
        assert data.table["split"].tolist()[:23] == alone
        assert all(Path(path).is_absolute() for path in data.table["path"])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SpanMask(share=1.7), "a share from 0 to 1 in spans of at least 1, but got 1.7 and 10"),
        (lambda: SpanMask(length=0), "but got 0.65 and 0"),
        (lambda: ChannelMask(length=0), "but got 0.1 and 0"),
        (lambda: AudioView(speed=[0.9, 0.0]), r"to be factors above 0, but got \[0.9, 0.0\]"),
        (lambda: Limits(longest=0), "data.limits.longest to be above 0 s, but got 0"),
        (lambda: Audio("samples", rate=0), "data.rate to be at least 1 Hz, but got 0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()
