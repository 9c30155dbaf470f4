"""ABX and units against phones: closed forms, naive twins, the commands on tones of known times."""

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from torch import Tensor
from triptych.cli import main
from triptych.tasks.config import merge
from triptych.tasks.fit import fit
from triptych.tasks.speech.abx import Item, abx, pairwise_distances, warp, wrong_shares
from triptych.tasks.speech.clock import Clock
from triptych.tasks.speech.decode import Span
from triptych.tasks.speech.phones import Phone, Phones, read_phones, read_textgrid
from triptych.tasks.speech.purity import agreement, resampled
from triptych.tasks.speech.textgrid import write_textgrid
from triptych.tokenizers.errors import UserError

RATE = 1000


# When phones are said


def test_a_phones_frames_are_those_whose_centres_it_holds() -> None:
    """Frames of 30 ms every 20 ms: centres at .015, .035, .055 ... seconds after the clip's start."""
    phones = Phones({"/a/b.wav": [Phone("o", 1.05, 1.09), Phone("sil", 1.0, 1.05), Phone("k", 1.035, 1.05)]})
    clock = Clock(30, 20, RATE)
    assert phones.spans("/a/b.wav", 1.0, clock, 4) == [("k", 1, 2), ("o", 2, 4)]
    assert phones.spans("/a/b.wav", 1.04, clock, 4) == [("o", 0, 2)]
    assert phones.of("/c/b.wav") == []
    assert Phones({"b": [Phone("a", 0, 1)]}).of("/c/b.flac") == [Phone("a", 0, 1)]


@pytest.mark.parametrize("short", [False, True])
def test_textgrids_of_both_formats_are_read(tmp_path: Path, short: bool) -> None:
    file = tmp_path / "deep" / "a.TextGrid"
    file.parent.mkdir()
    spans = [Span('"', 0.1, 0.4, 1), Span("t", 0.4, 0.75, 1)]
    write_textgrid(file, 1.0, {"words": [Span("x [2] 3", 0, 1, 1)], "phones": spans})
    if short:
        lines = ["0", "1", "<exists>", "1", '"IntervalTier"', '"phones"', "0", "1", "3"]
        lines += ["0", ".1", '""', "0.1", "0.4", '""""', "0.4", "0.75", '"t"']
        file.write_text('File type = "ooTextFile"\n"TextGrid"\n\n' + "\n".join(lines), encoding="utf-16")
    assert read_phones(str(tmp_path)).of("x/a.wav") == [Phone('"', 0.1, 0.4), Phone("t", 0.4, 0.75)]
    with pytest.raises(UserError, match="must have a tier of intervals called 'letters', but its tiers are"):
        read_textgrid(file, "letters")


def test_textgrids_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("it/added", "ru/added", "ru/deep/only", "top"):
        file = tmp_path / f"{name}.TextGrid"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_textgrid(file, 1.0, {"phones": [Span(name, 0, 1, 1)]})
    phones = read_phones(str(tmp_path))
    audio = ("it/added", "ru/added", "de/added", "elsewhere/only", "anywhere/top", "anywhere/none")
    told = [[phone.label for phone in phones.of(f"/data/{name}.wav")] for name in audio]
    assert told == [["it/added"], ["ru/added"], [], ["ru/deep/only"], ["top"], []]
    (tmp_path / "store").mkdir()
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "ru").symlink_to(tmp_path / "store")
    assert phones.of(str(tmp_path / "audio" / "ru" / "added.wav"))[0].label == "ru/added"


@pytest.mark.parametrize("column", ["start", "end"])
@pytest.mark.parametrize("value", ["", "later", "nan"])
def test_a_time_that_is_no_number_is_named(tmp_path: Path, column: str, value: str) -> None:
    table = tmp_path / "phones.csv"
    times = {"start": "0", "end": "1"} | {column: value}
    table.write_text(f"path,start,end,phone\na.wav,0,1,e\na.wav,{times['start']},{times['end']},o\n")
    expected = rf"the {column} in row 3 of .*phones.csv must be a number of seconds, but is {value!r}"
    with pytest.raises(UserError, match=expected):
        read_phones(str(table))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("path,start,end,phone\na.wav,0,1,\xe8\n".encode("latin-1"), "in UTF-8, but is not; save it as CSV"),
        (b"", "must be a table, but cannot be read"),
        (b"path,start,end,phone\na.wav,0,1,e\na,b,c,d,e,f\n", "must be a table, but cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "phones.csv").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        read_phones(str(tmp_path / "phones.csv"))


def test_a_table_is_read_and_bad_ones_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "phones.csv"
    table.write_text("path,start,end,phone\nsub/a.wav,0,0.5,null\nsub/a.wav,0.5,0.6\nb.wav,0,1,e\n")
    phones = read_phones(str(table))
    assert phones.of(str(tmp_path / "sub" / "a.wav")) == [Phone("null", 0, 0.5)]
    assert phones.of("elsewhere/b.wav") == []
    table.write_text("path,start,phone\n")
    with pytest.raises(UserError, match="must have the columns path, start, end, phone, but lacks end"):
        read_phones(str(table))
    table.write_text("path,start,end,phone\na.wav,1,0.5,e\n")
    with pytest.raises(UserError, match=r"the phone 'e' of .* ends at 0.5 s, before its start"):
        read_phones(str(table))
    for missing in (str(tmp_path / "no.csv"), str(tmp_path)):
        with pytest.raises(UserError, match="expected --phones to name a table or a folder of TextGrids"):
            read_phones(missing)
    (tmp_path / "bad.TextGrid").write_text('"IntervalTier" "phones" 0 1 2 0')
    with pytest.raises(UserError, match="must be a TextGrid"):
        read_phones(str(tmp_path))


# ABX


def naive_warp(distances: Tensor) -> float:
    """The least total over every path, and the mean along it."""
    rows, columns = distances.shape
    best = (math.inf, 0)

    def go(i: int, j: int, total: float, steps: int) -> None:
        nonlocal best
        total, steps = total + float(distances[i, j]), steps + 1
        if (i, j) == (rows - 1, columns - 1):
            best = min(best, (total, steps))
            return
        for di, dj in ((1, 1), (1, 0), (0, 1)):
            if i + di < rows and j + dj < columns:
                go(i + di, j + dj, total, steps)

    go(0, 0, 0.0, 0)
    return best[0] / best[1]


def test_warping_takes_the_cheapest_of_all_paths() -> None:
    lengths, others = torch.tensor([4, 1, 3, 2]), torch.tensor([3, 5, 3, 1])
    distances = torch.rand(4, 4, 5)
    expected = [naive_warp(d[:n, :m]) for d, n, m in zip(distances, lengths, others, strict=True)]
    torch.testing.assert_close(warp(distances, lengths, others), torch.tensor(expected))


def test_distances_are_mean_angles() -> None:
    """Right angles are a half; a sequence said twice as slowly is at no distance."""
    east, north = torch.tensor([1.0, 0]), torch.tensor([0, 3.0])
    slow = torch.stack([east, east, north, north])
    found = pairwise_distances([torch.stack([east, north]), east[None], -east[None]], [slow, north[None]])
    expected = torch.tensor([[0.0, 0.25], [0.25, 0.5], [0.75, 0.5]])
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def items(phones: str, voices: str, x: Tensor) -> list[Item]:
    return [Item(p, v, frames) for p, v, frames in zip(phones, voices, x, strict=True)]


def test_phones_apart_are_told_phones_alike_are_not() -> None:
    axes = torch.eye(3)[[0, 0, 1, 1]].unsqueeze(1).expand(4, 2, 3) + 0.01 * torch.randn(4, 2, 3)
    apart = abx(items("aabb", "1111", axes), across=False)
    assert apart is not None and apart.mean == apart.low == apart.high == 0
    alike = abx(items("aabb", "1111", torch.ones(4, 2, 3)), across=False)
    assert alike is not None and alike.mean == 0.5  # as near to either
    assert abx(items("aabb", "1111", axes), across=True) is None
    assert abx(items("ab", "11", axes[:2]), across=False) is None  # nothing is said twice
    turned = torch.eye(3)[[0, 1, 1, 0]].unsqueeze(1)  # the second voice swaps the phones
    across = abx(items("abab", "1122", turned), across=True)
    assert across is not None and across.mean == 1


@pytest.mark.parametrize("across", [False, True])
def test_shares_are_those_of_all_triples(across: bool) -> None:
    torch.manual_seed(1)
    every = [Item("aabbbcc"[i % 7], "12"[i // 7], torch.randn(1 + i % 3, 5)) for i in range(14)]
    errors = []
    for one, other in product("abc", repeat=2):
        voices = []
        for voice, probe in (("1", "2"), ("2", "1")) if across else (("1", "1"), ("2", "2")):
            wrong = []
            for a, b, x in product(every, repeat=3):
                if (a.voice, b.voice, x.voice) != (voice, voice, probe) or a is x or one == other:
                    continue
                if (a.phone, b.phone, x.phone) == (one, other, one):
                    near, far = (float(pairwise_distances([y.frames], [x.frames])) for y in (a, b))
                    wrong.append(1.0 if near > far else 0.5 if near == far else 0.0)
            voices += [sum(wrong) / len(wrong)] if wrong else []
        errors += [sum(voices) / len(voices)] if voices else []
    found = abx(every, across)
    assert found is not None and found.mean == pytest.approx(sum(errors) / len(errors))
    assert found.low <= found.mean <= found.high and len(errors) == 6
    assert np.isnan(np.diag(wrong_shares(every, every, ["a", "b", "c"]))).all()


# Units


def test_agreement_in_closed_form() -> None:
    phones = np.array([0, 0, 1, 1, 2, 2, 2, 2])
    same = agreement(phones, phones + 5)
    assert (same.pnmi, same.phone_purity, same.unit_purity) == pytest.approx((1, 1, 1))
    one = agreement(phones, np.zeros(8, dtype=np.int64))
    assert (one.pnmi, one.phone_purity, one.unit_purity) == pytest.approx((0, 0.5, 1))
    halves = agreement(phones, np.array([0, 1, 0, 1, 2, 3, 2, 3]))  # units tell {0, 1} from 2
    assert halves.pnmi == pytest.approx(math.log(2) / (1.5 * math.log(2)))
    assert (halves.phone_purity, halves.unit_purity) == pytest.approx((6 / 8, 4 / 8))
    assert agreement(np.zeros(4, dtype=np.int64), np.arange(4)).pnmi == 0
    low, high = resampled([phones, phones], [phones, phones])
    assert low == pytest.approx(1) and high == pytest.approx(1)


def test_the_interval_holds_the_figure_though_few_clips_agree_by_chance() -> None:
    random = np.random.default_rng(3)
    phones, units = (list(random.integers(0, 11, (17, 13))) for _ in range(2))
    told = agreement(np.concatenate(phones), np.concatenate(units))
    low, high = resampled(phones, units)
    assert low[0] < told.pnmi < high[0]


# The commands


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of three tones, in turn for a quarter of a second each, by two voices (loud and soft)."""
    root = tmp_path_factory.mktemp("spoken")
    rng, rows, phones = np.random.default_rng(0), [], []
    tones = {"low": 300, "middle": 900, "high": 2500}
    for index in range(16):
        order = rng.permutation(list(tones))
        time = np.arange(2000) / 8000
        wave = np.concatenate([np.sin(2 * np.pi * tones[tone] * time) for tone in order])
        wave = (0.5 if index % 2 else 0.05) * (wave + 0.02 * rng.standard_normal(len(wave)))
        soundfile.write(root / f"{index}.wav", wave, 8000)
        rows.append({"path": f"{index}.wav", "speaker": "loud" if index % 2 else "soft"})
        phones += [
            {"path": f"{index}.wav", "start": 0.25 * i, "end": 0.25 * (i + 1), "phone": tone}
            for i, tone in enumerate(order)
        ]
    table = pd.DataFrame(rows)
    table["split"] = ["train"] * 7 + ["val"] + ["test"] * 8
    table.to_csv(root / "manifest.csv", index=False)
    pd.DataFrame(phones).to_csv(root / "phones.csv", index=False)
    return root


@pytest.fixture(scope="module")
def run(spoken: Path) -> str:
    changes = {
        "data.path": str(spoken / "manifest.csv"),
        "data.segment": 1.5,
        "data.batch_seconds": 6.0,
        "data.columns.voice": "speaker",
        "trainer.max_steps": 1,
        "trainer.limit_val_batches": 0,
        "trainer.enable_progress_bar": False,
    }
    return str(fit(merge(["speech/data2vec"], changes), output=str(spoken / "run")))


def test_every_layer_is_asked_beside_untrained_and_mfcc(run: str, spoken: Path, tmp_path: Path) -> None:
    phones, out = str(spoken / "phones.csv"), tmp_path / "out.json"
    layers = [f"{who}, layer {i}" for who in ("this run", "untrained encoder") for i in range(5)]
    asked = ["--run", run, "--phones", phones, "--json", str(out)]
    assert main(["evaluate", "abx", *asked, "--items", "2"]) == 0
    rows = json.loads(out.read_text())["ABX"]
    for metric in ("ABX error within voices", "ABX error across voices"):
        found = {row["system"]: row for row in rows if row["metric"] == metric}
        assert list(found) == [*layers, "MFCC with slopes"]
        assert found["MFCC with slopes"]["value"] < 0.05  # tones are easy to tell
        assert all(row["baseline"] != name.startswith("this run") for name, row in found.items())
    assert main(["evaluate", "units", *asked, "--clusters", "6"]) == 0
    rows = json.loads(out.read_text())["units"]
    told = {row["system"]: row for row in rows if row["metric"] == "PNMI"}
    assert list(told) == [*layers, "MFCC with slopes"]
    assert told["MFCC with slopes"]["value"] > 0.7
    assert all(0 <= row["low"] <= row["value"] + 0.05 for row in rows)


def test_what_has_no_phones_is_refused(run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.csv").write_text("path,start,end,phone\nx.wav,0,1,e\n")
    assert main(["evaluate", "abx", "--run", run, "--phones", str(tmp_path / "other.csv")]) == 2
    assert "to hold the phones of the data, but no test clip has any" in capsys.readouterr().err
