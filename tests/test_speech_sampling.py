"""The order of audio: shares of languages, batches of like length; and what views do to a waveform."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from triptych.tasks.data import EpochSampler, generator
from triptych.tasks.speech.augment import ChannelMask, Mixing, Noise, add_noise, mix, speed
from triptych.tasks.speech.data import Audio, Limits
from triptych.tasks.speech.masks import SpanMask
from triptych.tasks.speech.sampling import AGAIN, GroupSampler, Sampling, SecondsSampler, tempered
from triptych.tasks.speech.views import AudioView
from triptych.tokenizers.audio import Positions
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import View

RATE = 1000


def test_tempered_shares_are_those_of_the_formula() -> None:
    hours = {("a", "x"): 9.0, ("a", "y"): 7.0, ("b", "x"): 4.0}
    found = tempered(hours, 0.5, 0.5)
    first = 4 / (4 + 2)  # sqrt(16) against sqrt(4)
    expected = {
        ("a", "x"): first * 3 / (3 + 7**0.5),
        ("a", "y"): first * 7**0.5 / (3 + 7**0.5),
        ("b", "x"): 1 / 3,
    }
    assert found == pytest.approx(expected)
    assert tempered(hours, 1, 1) == pytest.approx({key: n / 20 for key, n in hours.items()})
    assert tempered(hours, 0, 0) == pytest.approx({("a", "x"): 0.25, ("a", "y"): 0.25, ("b", "x"): 0.5})


def zipf(languages: int = 128, clips: int = 25000) -> dict[str, list[int]]:
    """Clips of one length, the k-th language having 1/k of what the first has."""
    share = 1 / np.arange(1, languages + 1)
    counts = np.maximum((share / share.sum() * clips).astype(int), 1)
    ends = np.cumsum(counts)
    return {
        f"l{k:03}": list(range(end - n, end)) for k, (n, end) in enumerate(zip(counts, ends, strict=True))
    }


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_128_languages_of_zipf_hours_come_in_their_shares(alpha: float) -> None:
    languages = zipf()
    shares = tempered({(name, ""): len(group) for name, group in languages.items()}, alpha, 1.0)
    sampler = GroupSampler(list(languages.values()), [shares[name, ""] for name in languages], seed=3)
    owner = {index: name for name, group in languages.items() for index in group}
    drawn = Counter()
    for epoch in range(-(-100_000 // len(sampler))):
        sampler.set_epoch(epoch)
        drawn.update(owner[index] for _, index in sampler)
    total = drawn.total()
    assert total >= 100_000 and len(languages) == 128
    assert max(abs(drawn[name] / total - shares[name, ""]) for name in languages) < 0.003
    first = shares["l000", ""] / shares["l127", ""]
    assert first == pytest.approx((len(languages["l000"]) / len(languages["l127"])) ** alpha)


def test_an_epoch_needs_no_past_and_repeats_no_clip_before_its_group_is_through() -> None:
    groups = [[0, 1, 2], list(range(3, 40))]
    sampler, resumed = GroupSampler(groups, [0.5, 0.5], 1), GroupSampler(groups, [0.5, 0.5], 1)
    epochs = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    resumed.set_epoch(3)
    assert list(resumed) == epochs[3] != epochs[2]
    seen = Counter(index for _, index in epochs[3])
    assert {6, 7} >= {seen[0], seen[1], seen[2]} and max(seen[index] for index in groups[1]) == 1
    assert len(epochs[3]) == 40 and all(epoch % AGAIN == 3 for epoch, _ in epochs[3])
    assert len(set(epochs[3])) == 40  # no two draws of a clip are drawn alike


def folder(root: Path, languages: dict[str, int]) -> Path:
    """Clips of 0.3 to 0.9 s in a manifest with a language."""
    rows = ["path,language,corpus,split"]
    for name, count in languages.items():
        for index in range(count):
            wave = np.sin(np.arange(300 + 60 * (index % 11)) * (0.1 + index / 50)) / 2
            soundfile.write(root / f"{name}{index}.wav", wave, RATE)
            rows.append(f"{name}{index}.wav,{name},c{index % 2},{'train' if index else 'val'}")
    (root / "m.csv").write_text("\n".join(rows))
    return root / "m.csv"


def audio(path: Path, **options: object) -> Audio:
    data = Audio(str(path), **{"rate": RATE, "batch_seconds": 3.0, "limits": Limits(longest=2.0), **options})
    tokenizer = LogMelFrames(mels=20, window=25, hop=20, stack=1)
    data.attach({"audio": tokenizer})
    data.setup()
    return data


def test_a_clip_that_comes_again_in_an_epoch_is_masked_anew(tmp_path: Path) -> None:
    views = {"train": AudioView(mask=SpanMask(length=3), mix=Mixing(probability=1.0))}
    samples = audio(folder(tmp_path, {"it": 5, "ru": 5}), views=views).samples("train")
    first, second, repeated = (samples[epoch, 1].looks["train"] for epoch in (3, 3 + AGAIN, 3))
    assert not torch.equal(first.masked, second.masked) and torch.equal(first.masked, repeated.masked)
    assert torch.equal(first.clean, second.clean)


def test_the_loader_draws_languages_by_their_tempered_hours(tmp_path: Path) -> None:
    file = folder(tmp_path, {"it": 41, "ru": 11})
    data = audio(file, sampling=Sampling(language=0.0, corpus=0.0))
    loader = data.train_dataloader()
    names = [data.names("train")[index] for batch in loader.batch_sampler for _, index in batch]
    assert abs(sum(name.startswith("it") for name in names) - 25) <= 2 and len(names) == 50
    with pytest.raises(UserError, match="'tongue' or 'body', but there is neither"):
        columns = type(data.columns)(language="tongue", corpus="body")
        audio(file, sampling=Sampling(language=0.5), columns=columns).train_dataloader()


def test_batches_are_of_like_length_and_of_equal_seconds() -> None:
    lengths = (torch.rand(997) * 9 + 1).tolist()
    spread, sizes = {}, {}
    for buckets in (1, 10):
        sampler = SecondsSampler(EpochSampler(997, seed=5), lengths, 60.0, buckets)
        batches = list(sampler)
        assert sorted(index for batch in batches for _, index in batch) == list(range(997))
        assert len(batches) == len(sampler)
        kinds = [[lengths[index] for _, index in batch] for batch in batches]
        spread[buckets] = np.mean([max(kind) - min(kind) for kind in kinds])
        sizes[buckets] = [sum(kind) for kind in kinds]
    assert spread[10] < 0.2 * spread[1]
    assert max(sizes[10]) < 60 + 10 and min(sizes[10]) > 50 - 10
    order = [lengths[batch[0][1]] for batch in batches]
    assert order != sorted(order)


def test_bucketed_order_is_drawn_from_seed_and_epoch() -> None:
    lengths = (torch.rand(83) + 1).tolist()

    def epoch(number: int, seed: int | None = 5) -> list[list[tuple[int, int]]]:
        sampler = EpochSampler(83, seed)
        sampler.set_epoch(number)
        return list(SecondsSampler(sampler, lengths, 10.0, 4))

    assert epoch(3) == epoch(3) and epoch(3) != epoch(4)
    assert [index for batch in epoch(0, None) for _, index in batch] == list(range(83))


def test_no_batch_is_empty_where_clips_are_nearly_as_long_as_a_batch() -> None:
    for lengths in ([15.0, 15.0, 1.0], [15.0] * 7 + [1.0] * 3, [14.0, 3.0, 14.0]):
        sampler = SecondsSampler(EpochSampler(len(lengths), seed=1), lengths, 15.0, 3)
        assert len(list(sampler)) == len(sampler)


# What views do


def wave(samples: int = 800, hertz: float = 40.0) -> torch.Tensor:
    return torch.sin(2 * torch.pi * hertz * torch.arange(samples) / RATE)


def test_speed_changes_length_and_pitch_together() -> None:
    faster, factor = speed(wave(), [1.25], generator(0))
    assert factor == 1.25 and len(faster) == 640
    spectrum = torch.fft.rfft(faster).abs()
    assert spectrum.argmax() * RATE / len(faster) == pytest.approx(50, abs=1.6)
    same, factor = speed(original := wave(), [1.0], generator(0))
    assert same is original and factor == 1.0
    assert {speed(wave(), [0.9, 1.0, 1.1], generator(i))[1] for i in range(20)} == {0.9, 1.0, 1.1}


def decibels(speech: torch.Tensor, rest: torch.Tensor) -> float:
    return float(10 * (speech.square().mean() / rest.square().mean()).log10())


def test_noise_has_the_drawn_ratio() -> None:
    speech = wave()
    white = add_noise(speech, Noise(probability=1, snr=(7, 7)), lambda _: speech, generator(1)) - speech
    assert decibels(speech, white) == pytest.approx(7, abs=1e-3)
    hum = wave(100, 30)
    under = add_noise(speech, Noise("x", 1, (3, 3)), lambda _: hum, generator(1)) - speech
    assert decibels(speech, under) == pytest.approx(3, abs=1e-3)
    torch.testing.assert_close(under[:100], under[100:200], atol=1e-4, rtol=0)
    ratios = [
        decibels(speech, add_noise(speech, Noise(probability=1), lambda _: hum, generator(i)) - speech)
        for i in range(100)
    ]
    assert min(ratios) < 6.5 and max(ratios) > 18.5 and min(ratios) >= 5 and max(ratios) <= 20
    assert add_noise(speech, Noise(probability=0), lambda _: hum, generator(1)) is speech


def test_another_voice_covers_at_most_its_share() -> None:
    speech, other = wave(), wave(500, 90)
    covered = []
    for index in range(100):
        over = mix(speech, Mixing(1.0, 0.5, (0, 0)), lambda _: other, generator(index)) - speech
        where = (over.abs() > 1e-9).nonzero().squeeze(1)
        covered.append(len(where) and int(where[-1] - where[0] + 1))
    assert 390 < max(covered) <= 401 and min(covered) < 20
    share = sum(
        mix(speech, Mixing(0.2), lambda _: other, generator(i, "p")) is not speech for i in range(500)
    )
    assert 70 < share < 130


def test_channel_masks_cover_their_share() -> None:
    drawn = torch.stack([ChannelMask(0.25, 8).draw(128, generator(i)) for i in range(200)])
    assert drawn.float().mean() == pytest.approx(0.225, abs=0.02)  # spans overlap
    assert drawn.any(0).all()
    assert ChannelMask(1.0, 64).draw(7, generator(0)).all()


def test_muted_channels_are_zero_in_all_tokens_of_their_entry() -> None:
    tokenizer = LogMelFrames(mels=20, window=25, hop=20, stack=1, positions=Positions(5, 3))
    tokenizer.build(12, {"rate": RATE})
    muted = torch.zeros(2, 12, dtype=torch.bool)
    muted[1, 3:5] = True
    seen = []
    tokenizer.place = lambda embedded: seen.append(embedded.values) or embedded.values
    tokens = tokenizer(View("audio", [wave(300), wave(500)], muted=muted))
    first, second = seen[0].split(tokens.lengths)
    assert (second[:, 3:5] == 0).all() and (second[:, :3] != 0).all() and (first != 0).all()
    assert View("audio", [wave()], muted=muted).whole().muted is None


def test_views_are_drawn_from_seed_epoch_and_sample(tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    soundfile.write(tmp_path / "noise" / "hum.wav", wave(200, 25).numpy(), RATE)
    views = {
        "train": AudioView(
            SpanMask(0.5, 3, 1),
            ChannelMask(0.3, 2),
            [0.9, 1.1],
            Mixing(1.0),
            Noise(str(tmp_path / "noise"), 1.0),
        ),
        "clear": AudioView(),
    }
    file = folder(tmp_path, {"it": 13})
    data, again = (audio(file, views=views) for _ in range(2))
    for one in (data, again):
        one.tokenizers["audio"].width = 16
    first, second = data.samples("train"), again.samples("train")
    look, clear = first[4, 2].looks["train"], first[4, 2].looks["clear"]
    again_look = second[4, 2].looks["train"]
    assert torch.equal(look.data, again_look.data) and torch.equal(look.muted, again_look.muted)
    assert not torch.equal(look.data, first[5, 2].looks["train"].data[: len(look.data)])
    assert clear.clean is None and len(look.data) == len(look.clean) != len(clear.data)
    assert min(abs(len(look.data) - len(clear.data) / factor) for factor in (0.9, 1.1)) <= 1
    batch = first.collate([first[4, 2], first[4, 3]])
    view = batch["train"]
    assert (
        view.muted.shape == (2, 16)
        and len(view.clean) == 2
        and view.masked.shape == (sum((len(data) - 25) // 20 + 1 for data in view.data),)
    )
    assert batch["clear"].muted is None and batch["clear"].clean is None


def test_a_ragged_target_moves_with_its_view() -> None:
    view = View(
        "audio", [wave()], ragged={"text": [torch.arange(3)]}, muted=torch.zeros(1, 2, dtype=torch.bool)
    )
    moved = view.to("meta")
    assert moved.ragged["text"][0].device.type == moved.muted.device.type == "meta"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_processes_share_an_epoch_out(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Together they see every batch of one process, each as many; what does not divide comes twice."""
    lengths = [1.0 + index % 7 for index in range(97)]

    def made(seed: int | None) -> tuple[EpochSampler, SecondsSampler, SecondsSampler]:
        groups = GroupSampler([range(60), range(60, 97)], [0.5, 0.5], 3)
        plain = EpochSampler(97, seed)
        for sampler in (plain, groups):
            sampler.set_epoch(2)
        return plain, SecondsSampler(plain, lengths, 20.0, 3), SecondsSampler(groups, lengths, 20.0, 3, 400.0)

    for seed in (5, None):
        alone = [list(sampler) for sampler in made(seed)]
        monkeypatch.setattr("triptych.tasks.data.ranks", lambda: number)
        monkeypatch.setattr("triptych.tasks.speech.sampling.ranks", lambda: number)
        shares: list[list[list[object]]] = [[], [], []]
        for rank in range(number):
            monkeypatch.setattr("triptych.tasks.data.rank", lambda rank=rank: rank)
            for which, sampler in enumerate(made(seed)):
                shares[which].append(list(sampler))
                assert len(shares[which][-1]) == len(sampler)
        monkeypatch.undo()
        for whole, parts in zip(alone, shares, strict=True):
            taken = [part[turn] for turn in range(len(parts[0])) for part in parts]
            assert len({len(part) for part in parts}) == 1 and taken[: len(whole)] == whole
            assert taken[len(whole) :] == whole[: len(taken) - len(whole)]
