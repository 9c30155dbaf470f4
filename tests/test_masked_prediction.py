"""HuBERT's and BEST-RQ's objective against naive twins, and units that follow every frame of a sample."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from triptych.backbones.encoder import Encoder
from triptych.cli import main
from triptych.objectives.masked_prediction import MaskedPrediction
from triptych.objectives.random_quantiser import RandomQuantiser
from triptych.tasks.model import Model
from triptych.tasks.speech.clips import Clips
from triptych.tasks.speech.clock import Clock
from triptych.tasks.speech.data import Audio
from triptych.tasks.speech.manifest import read_clips
from triptych.tasks.speech.masks import SpanMask
from triptych.tasks.speech.segments import Drawn
from triptych.tasks.speech.units import BLOCK, Units, blocks, make_units, mfcc_features
from triptych.tasks.speech.views import AudioView
from triptych.tokenizers.audio import Positions
from triptych.tokenizers.audio_logmel import LogMelFrames
from triptych.tokenizers.audio_waveform import WaveformFrames
from triptych.tokenizers.errors import UserError
from triptych.tokenizers.view import View

RATE, UNITS, WIDTH = 1000, 5, 8


def model(objective: MaskedPrediction, waveform: bool = False) -> Model:
    positions = Positions(3, 1)
    tokenizer: LogMelFrames | WaveformFrames = LogMelFrames(5, window=32, hop=10, positions=positions)
    if waveform:
        tokenizer = WaveformFrames([(6, 20, 10), (6, 2, 2)], positions=positions)
    built = Model({"audio": tokenizer}, Encoder(WIDTH, 2, 2), {"units": objective})
    built.build({"train": "audio"}, {"audio": {"rate": RATE, "units": UNITS}})
    return built


def view(built: Model, lengths: tuple[int, ...] = (300, 170, 230)) -> View:
    draw = torch.Generator().manual_seed(3)
    tokenizer = built.tokenizers["audio"]
    frames = [tokenizer.num_tokens((length,)) for length in lengths]
    return View(
        "audio",
        [torch.randn(length, generator=draw) for length in lengths],
        masked=torch.rand(sum(frames), generator=draw) < 0.5,
        ragged={"units": [torch.randint(UNITS, (n,), generator=draw) for n in frames]},
    )


def alone(built: Model, whole: View) -> list[View]:
    """Each utterance in a view of its own."""
    frames = [built.tokenizers["audio"].num_tokens(wave.shape) for wave in whole.data]
    masks = whole.masked.split(frames)
    return [
        View("audio", [wave], masked=mask, ragged={"units": [units]})
        for wave, mask, units in zip(whole.data, masks, whole.ragged["units"], strict=True)
    ]


def test_hubert_is_its_formula() -> None:
    """Hsu et al. 2021, eq. 3: p(c | t) = softmax over units of cos(A o_t, e_c) / 0.1, at masked frames."""
    built = model(objective := MaskedPrediction(width=7), waveform=True)
    whole = view(built)
    loss = built({"train": whole})
    (read,) = objective.reads()
    tokens = built.encode({"train": whole}, [read])[read]
    total, frames = torch.zeros(()), 0
    for frame, unit in enumerate(torch.cat(whole.ragged["units"]).tolist()):
        if not whole.masked[frame]:
            continue
        x = objective.project(tokens.values[frame])
        cosines = torch.stack([x @ e / (x.norm() * e.norm()) for e in objective.units]) / 0.1
        total, frames = total - cosines[unit] + cosines.exp().sum().log(), frames + 1
    term = loss.terms["units/masked"]
    torch.testing.assert_close(term.sum, total)
    assert term.count == frames == built.objective.counts({"train": whole})["units/masked"]
    penalty = loss.terms["units/penalty"]
    assert penalty.weight == 10.0 and penalty.count == len(whole.masked)
    parameters = [p for name, p in built.named_parameters() if "mask_token" not in name]
    ours = torch.autograd.grad(term.sum, parameters, retain_graph=True, allow_unused=True)
    theirs = torch.autograd.grad(total, parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_random_labels_are_the_nearest_codes_and_never_learn() -> None:
    quantiser = RandomQuantiser(codes=11, width=3)
    quantiser.build(6)
    source = torch.randn(17, 6)
    expected = []
    for x in source:
        projected = quantiser.projection.T @ x
        distances = [(projected / projected.norm() - c).norm() for c in quantiser.codebook]
        expected.append(int(torch.stack(distances).argmin()))
    assert quantiser(source).tolist() == expected and len(set(expected)) > 3
    assert not list(quantiser.parameters()) and set(quantiser.state_dict()) == {"projection", "codebook"}
    torch.testing.assert_close(quantiser.codebook.norm(dim=1), torch.ones(11))
    assert quantiser.projection.abs().max() <= math.sqrt(6 / (6 + 3))


@pytest.mark.parametrize("kind", ["hubert", "bestrq"])
def test_packed_is_one_by_one(kind: str) -> None:
    quantiser = RandomQuantiser(11, 3) if kind == "bestrq" else None
    built = model(MaskedPrediction(quantiser, width=None if quantiser else 7)).eval()
    whole = view(built)
    parameters = [p for p in built.parameters() if p.requires_grad]
    sums = [built({"train": one}).terms["units/masked"].sum for one in (whole, *alone(built, whole))]
    torch.testing.assert_close(sums[0], torch.stack(sums[1:]).sum())
    together = torch.autograd.grad(sums[0], parameters, allow_unused=True)
    apart = torch.autograd.grad(torch.stack(sums[1:]).sum(), parameters, allow_unused=True)
    for one, other in zip(together, apart, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_random_labels_are_of_the_clean_audio() -> None:
    """Under noise the student still tells what was said: the targets do not change, the input does."""
    built = model(objective := MaskedPrediction(RandomQuantiser(11, 3), width=None))
    whole = view(built)
    noisy = replace(whole, data=[wave + torch.randn_like(wave) for wave in whole.data], clean=whole.data)
    (read,) = objective.reads()
    one, other = (built.encode({"train": seen}, [read])[read] for seen in (whole, noisy))
    assert torch.equal(objective.targets(one, whole), objective.targets(other, noisy))
    assert not torch.allclose(one.values, other.values) and not torch.allclose(one.features, other.features)


@pytest.mark.parametrize("kind", ["hubert", "bestrq"])
def test_the_loss_falls(kind: str) -> None:
    quantiser = RandomQuantiser(11, 3) if kind == "bestrq" else None
    built = model(MaskedPrediction(quantiser, width=None if quantiser else 7))
    whole = view(built)
    optimiser = torch.optim.AdamW(built.parameters(), 0.01)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = built({"train": whole})
        loss.total.backward()
        optimiser.step()
        losses.append(loss.total.item())
    assert losses[-1] < 0.6 * losses[0]
    assert 1 <= loss.metrics["units/perplexity"] <= 11 and loss.metrics["units/commonest"] < 1


def test_what_has_no_units_is_refused() -> None:
    with pytest.raises(UserError, match=r"needs units: data.units must be `mfcc`"):
        Model({"audio": LogMelFrames(5, 32, 10, positions=Positions(3, 1))}, Encoder(8, 1, 2),
              {"units": MaskedPrediction()}).build({"train": "audio"}, {"audio": {"rate": RATE}})  # fmt: skip
    with pytest.raises(UserError, match="a tokenizer whose frames have a source"):
        model(MaskedPrediction(RandomQuantiser()), waveform=True)
    built = model(MaskedPrediction())
    whole = view(built)
    whole.ragged["units"][1] = whole.ragged["units"][1][1:]
    with pytest.raises(UserError, match="a unit for each frame"):
        built({"train": whole})


# Units


def test_a_frames_unit_is_that_of_its_time() -> None:
    """Units every 10 ms of 25 ms, frames every 20 ms of 30 ms, over two pieces, also 1.25 times as fast."""
    rows = np.arange(100), 1000 + np.arange(50)
    units = Units(
        2000, Clock(25, 10, RATE), {"a": ([0.0, 1.0], [*rows]), "b": ([0.5], [2000 + np.arange(40)])}
    )
    assert units.at("a", 0.0125) == 0 and units.at("a", 0.0325) == 2 and units.at("a", 1.0125 + 0.07) == 1007
    assert units.at("a", 0.0) == 0 and units.at("b", 99) == 2039
    with pytest.raises(UserError, match="lacks those of 'c'"):
        units.at("c", 0.0)
    import pandas as pd

    table = pd.DataFrame({"path": ["a", "b"], "start": [0.2, 0.5]})
    drawn = Drawn(torch.zeros(300), ((0, 100, 180), (1, 0, 120)))
    for factor, frames in ((1.0, 14), (1.25, 11)):
        found = units.of(drawn, table, Clock(30, 20, RATE), frames, factor).tolist()
        expected = []
        for frame in range(frames):
            sample = (15 + 20 * frame) * factor
            path, seconds = ("a", 0.3 + sample / RATE) if sample < 180 else ("b", 0.5 + (sample - 180) / RATE)
            expected.append(units.at(path, seconds))
        assert found == expected and found[0] >= 28 and found[-1] >= 2000


def test_a_long_clip_has_its_own_units_though_a_short_one_starts_within_it() -> None:
    """Clips 0 to 10 s, 2 to 3 s and 12 to 20 s of one file; the unit of a frame is its time in tenths."""
    times = [np.arange(100), 20 + np.arange(10), 120 + np.arange(80)]
    units = Units(200, Clock(100, 100, RATE), {"a": ([0.0, 2.0, 12.0], times)})
    asked = (0.05, 2.55, 2.95, 3.05, 7.75, 9.95, 12.05, 19.95)
    assert [units.at("a", seconds) for seconds in asked] == [0, 25, 29, 30, 77, 99, 120, 199]


def tones(root: Path, count: int = 8) -> Path:
    """Clips of two tones one after the other."""
    for index in range(count):
        halves = [np.sin(2 * np.pi * hertz * np.arange(4000) / 8000) for hertz in (400, 1500)]
        noise = 0.01 * np.random.default_rng(index).standard_normal(8000)
        soundfile.write(root / f"{index}.wav", 0.5 * np.concatenate(halves) + noise, 8000)
    return root


def test_clusters_tell_sounds_apart_and_are_kept(tmp_path: Path) -> None:
    clips = Clips(read_clips(str(tones(tmp_path))), 8000, bool, 30)
    features, clock = mfcc_features(8000)
    assert features(clips[0]).shape == ((8000 - 200) // 80 + 1, 39) and clock == Clock(200, 80, 8000)
    units = make_units(clips, range(8), features, clock, 2)
    for _, (row,) in units.of_file.values():
        assert len(set(row[:45])) == len(set(row[55:].tolist())) == 1 and row[10] != row[80]
    units.write(tmp_path / "units.parquet")
    again = Units.read(tmp_path / "units.parquet")
    assert (again.count, again.clock) == (2, clock)
    assert all((again.of_file[path][1][0] == rows[0]).all() for path, (_, rows) in units.of_file.items())
    with pytest.raises(UserError, match="at least as many frames as clusters, 900, but there are 784"):
        make_units(clips, range(8), features, clock, 900)


def test_frames_come_in_blocks_without_loss() -> None:
    stream = [torch.full((n, 2), float(i)) for i, n in enumerate((6000, 6000, 3000, 9000, 100))]
    found = list(blocks(iter(stream)))
    assert [len(block) for block in found] == [12000, 12100] and all(len(block) >= BLOCK for block in found)
    assert (np.concatenate(found) == torch.cat(stream).numpy()).all()


def test_the_command_and_the_loader_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tones(tmp_path)
    out = tmp_path / "units.parquet"
    command = [
        "cluster",
        "--features",
        "mfcc",
        "--rate",
        "8000",
        "--clusters",
        "2",
        "--data.path",
        str(tmp_path),
    ]
    assert main([*command, "--output", str(out)]) == 0
    assert "784 units of 0.01 s" in capsys.readouterr().out
    view = AudioView(SpanMask(0.5, 3, 1))
    data = Audio(str(tmp_path), {"train": view}, 8000, segment=1.7, batch_seconds=4.0, units=str(out))
    data.attach({"audio": LogMelFrames(20, window=200, hop=80, stack=2)})
    data.setup()
    assert data.facts()["audio"]["units"] == 2
    batch = next(iter(data.train_dataloader()))["train"]
    frames = [(len(wave) - 200) // 80 // 2 + ((len(wave) - 200) // 80) % 2 for wave in batch.data]
    assert [len(units) for units in batch.ragged["units"]] == frames
    low = Units.read(out).at(str(tmp_path / "0.wav"), 0.2)
    for wave, units in zip(batch.data, batch.ragged["units"], strict=True):
        spectra = wave.unfold(0, 240, 160)[: len(units)]
        peaks = torch.fft.rfft(spectra).abs().argmax(1) * 8000 / 240
        agree = ((peaks < 900) == (units == low)).float().mean()
        assert agree > 0.93
    assert main(["cluster", "--data.path", str(tmp_path)]) == 2
    assert "needs either --run RUN" in capsys.readouterr().err
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(UserError, match="must be `mfcc` or a file of `triptych cluster`"):
        Units.read(tmp_path / "no.parquet")
