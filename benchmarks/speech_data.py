"""Open speech for the benchmarks, as manifests in a folder outside the repository.

    python benchmarks/speech_data.py [--data FOLDER]

Needs `apt-get` and `dpkg` (Debian 12), and a network once; packages are unpacked into the folder, not
installed. 600 MB, 4 minutes on a quiet core.

synthetic.csv, phones.csv, spoken.csv: sentences said by espeak-ng (GPL-3; what it says is not) in en, de, es
    and it by 12 voices, half of which are in no training clip; `part` is train, val, heard (new sentences,
    known voices) or unheard (new voices too). phones.csv has each phone's time and spoken.csv each word's,
    both from the synthesis itself. A sentence is 5 to 9 words, drawn by 1 / (rank + 20) from 600 a language
    of the lists wamerican-small, wspanish (public domain), wngerman (GPL-2+) and witalian (GPL-3+).
words.csv: 30 more words a language, each by all 12 voices, at a rate and pitch of its own; `split` by voice.
fillets.csv: the dialogues of Fish Fillets in Dutch (fillets-ng-data-nl, GPL-2), with their texts.
asterisk.csv: prompts in en, es, fr, it and ru (asterisk-core-sounds-*, CC-BY-SA 3.0), no texts.
tuxpaint.csv: names of stamps (tuxpaint-stamps-default, GPL-2) in the languages that have 100 or more.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from espeak import Espeak, Spoken

FOLDER = Path("~/.cache/triptych-benchmarks/speech")
RATE = 16000
LISTS = {"en": "american-english-small", "de": "ngerman", "es": "spanish", "it": "italian"}
ENGINE = {"en": "en-us", "de": "de", "es": "es", "it": "it"}
HEARD = ("m1", "m2", "m4", "m6", "f1", "f3")
UNHEARD = ("m3", "m5", "m7", "m8", "f2", "f4")
#: Sentences of each language: 2 hours of training.
SIZES = {"train": 510, "val": 25, "heard": 60, "unheard": 60}
VOCABULARY, WORDS = 600, 30
PACKAGES = (
    *("espeak-ng-data", "libespeak-ng1", "libpcaudio0", "libsonic0"),
    *("wamerican-small", "wngerman", "wspanish", "witalian"),
    *("fillets-ng-data", "fillets-ng-data-nl", "tuxpaint-stamps-default"),
    *(f"asterisk-core-sounds-{language}-wav" for language in ("en", "es", "fr", "it", "ru")),
)
Rows = list[dict[str, Any]]


def prepare(folder: Path = FOLDER) -> Path:
    """Make what is missing and return the folder."""
    folder = folder.expanduser()
    share = unpack(folder) / "usr/share"
    if not (folder / "synthetic.csv").is_file():
        synthesise(folder)
    if not (folder / "words.csv").is_file():
        write(folder / "words.csv", list(isolated(folder)))
    found = {"fillets": fillets(share), "asterisk": asterisk(share), "tuxpaint": tuxpaint(share)}
    for name, rows in found.items():
        if not (folder / f"{name}.csv").is_file():
            write(folder / f"{name}.csv", list(rows))
    return folder


def unpack(folder: Path) -> Path:
    """Download the Debian packages that are not there and unpack them; returns their root."""
    store, root = folder / "debs", folder / "debian"
    store.mkdir(parents=True, exist_ok=True)
    missing = [name for name in PACKAGES if not list(store.glob(f"{name}_*.deb"))]
    if missing:
        subprocess.run(["apt-get", "download", *missing], cwd=store, check=True)
    for package in sorted(store.glob("*.deb")):
        mark = package.with_suffix(".unpacked")
        if not mark.is_file():
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
            mark.touch()
    return root


def vocabulary(share: Path, language: str, random: np.random.Generator) -> list[str]:
    """Different words of 2 to 10 letters in lower case, in a random order."""
    lines = (share / "dict" / LISTS[language]).read_text(encoding="utf-8").split("\n")
    proper = language == "de"  # nouns have capitals
    kept = {w.lower() for w in lines if w.isalpha() and 2 <= len(w) <= 10 and (proper or w.islower())}
    return [str(word) for word in random.permutation(sorted(kept))[: VOCABULARY + WORDS]]


def sentences(share: Path) -> Iterator[tuple[str, str, str, int, np.random.Generator]]:
    """(language, part, text, number, its own draws) of every sentence; no text comes twice."""
    for language in LISTS:
        random = np.random.default_rng([5, *language.encode()])
        words = np.array(vocabulary(share, language, random)[:VOCABULARY])
        chances = 1 / (np.arange(VOCABULARY) + 20)
        said: set[str] = set()
        for part, count in SIZES.items():
            for number in range(count):
                text = ""
                while not text or text in said:
                    text = " ".join(random.choice(words, random.integers(5, 10), p=chances / chances.sum()))
                said.add(text)
                yield language, part, text, number, random


def synthesise(folder: Path) -> None:
    """Say every sentence and every word; write the audio, the manifests and the times."""
    espeak, share = Espeak(folder / "debian"), folder / "debian/usr/share"
    clips: Rows = []
    phones: Rows = []
    spoken: Rows = []
    for language, part, text, number, random in sentences(share):
        voices = UNHEARD if part == "unheard" else HEARD
        voice, rate = voices[number % len(voices)], int(random.integers(135, 166))
        path = f"synthetic/{language}-{part}-{number:04}.flac"
        found = espeak.say(text, f"{ENGINE[language]}+{voice}", rate, int(random.integers(35, 66)))
        pause = random.uniform(0.05, 0.25, 2)
        save(folder / path, found, pause)
        split = part if part in ("train", "val") else "test"
        about = {"path": path, "text": text, "language": language, "speaker": f"{language}-{voice}"}
        clips.append({**about, "voice": voice, "part": part, "split": split})
        phones += [
            {"path": path, "start": a + pause[0], "end": b + pause[0], "phone": p} for a, b, p in found.phones
        ]
        spoken += [{"path": path, **word} for word in timed(text, found, pause[0])]
    write(folder / "phones.csv", phones)
    write(folder / "spoken.csv", spoken)
    write(folder / "synthetic.csv", clips)


def isolated(folder: Path) -> Iterator[dict[str, Any]]:
    """Words that are in no sentence, by every voice, each time at a rate and pitch of its own."""
    espeak = Espeak(folder / "debian")
    for language in LISTS:
        random = np.random.default_rng([5, *language.encode()])
        words = vocabulary(folder / "debian/usr/share", language, random)[VOCABULARY:]
        for number, word in enumerate(words):
            for voice in HEARD + UNHEARD:
                path = f"words/{language}-{number:02}-{voice}.flac"
                rate, pitch = int(random.integers(110, 201)), int(random.integers(20, 81))
                said = espeak.say(word, f"{ENGINE[language]}+{voice}", rate, pitch)
                save(folder / path, said, random.uniform(0.05, 0.25, 2))
                about = {"path": path, "text": word, "language": language, "speaker": voice}
                yield {**about, "part": "heard" if voice in HEARD else "unheard", "split": split_of(voice)}


def split_of(voice: str) -> str:
    """The part that the words of a voice are: not heard is the test part, one of the others validates."""
    return "test" if voice in UNHEARD else "val" if voice == HEARD[-1] else "train"


def timed(text: str, found: Spoken, pause: float) -> Rows:
    """Each word from its first phone to its last; none where espeak-ng counts them otherwise."""
    words, starts = text.split(), found.words
    if len(starts) != len(words):
        return []
    rows = []
    for word, begin, end in zip(words, starts, [*starts[1:], float("inf")], strict=True):
        inside = [(a, b) for a, b, _ in found.phones if begin <= a < end]
        if not inside:
            return []
        rows.append({"word": word, "start": inside[0][0] + pause, "end": inside[-1][1] + pause})
    return rows


def save(path: Path, found: Spoken, pause: Any) -> None:
    """FLAC at 16 kHz with silence before and behind."""
    import soundfile
    import torch
    from torchaudio.functional import resample

    path.parent.mkdir(parents=True, exist_ok=True)
    wave = torch.from_numpy(found.waveform).float() / 2**15
    wave = resample(wave, found.rate, RATE)
    before, behind = (round(RATE * one) for one in pause)
    wave = torch.nn.functional.pad(wave, (before, behind)).clamp(-1, 1)
    soundfile.write(path, wave.numpy(), RATE, subtype="PCM_16")


def fillets(share: Path) -> Iterator[dict[str, Any]]:
    """Dialogues whose text and sound are both there; the font of its subtitle tells who speaks."""
    home = share / "games/fillets-ng"
    for script in sorted(home.glob("script/*/dialogs_nl.lua")):
        found = re.findall(
            r'dialogId\("([^"]+)",\s*"([^"]*)",.*?\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)',
            script.read_text(encoding="utf-8"),
            re.S,
        )
        for name, font, text in found:
            sounds = sorted((home / "sound" / script.parent.name / "nl").glob(f"{name}.ogg"))
            for sound in sounds:
                about = {"path": sound, "text": text.replace('\\"', '"'), "language": "nl"}
                yield {**about, "speaker": font, "corpus": "fillets"}


def asterisk(share: Path) -> Iterator[dict[str, Any]]:
    """Prompts; a language is one voice."""
    for folder in sorted((share / "asterisk/sounds").iterdir()):
        language = folder.name[:2]
        for path in sorted(folder.rglob("*.wav")):
            if not path.is_symlink() and path.parent.name != "silence":
                yield {"path": path, "language": language, "speaker": folder.name, "corpus": "asterisk"}


def tuxpaint(share: Path) -> Iterator[dict[str, Any]]:
    """Names of stamps, with their texts where the stamp has them."""
    clips = []
    for path in sorted((share / "tuxpaint/stamps").rglob("*_desc_*.ogg")):
        name, _, language = path.stem.rpartition("_desc_")
        texts = path.with_name(f"{name}.txt")
        lines = texts.read_text(encoding="utf-8", errors="replace").split("\n") if texts.is_file() else []
        said = dict(line.split(".utf8=", 1) for line in lines if ".utf8=" in line)
        about = {"path": path, "text": said.get(language, "").strip(), "language": language}
        clips.append({**about, "speaker": language, "corpus": "tuxpaint"})
    languages = [clip["language"] for clip in clips]
    yield from (clip for clip in clips if languages.count(clip["language"]) >= 100)


def write(path: Path, rows: Rows) -> None:
    """A table, whole or not at all; paths relative to it."""
    import pandas as pd

    table = pd.DataFrame(rows)
    home = str(path.parent) + "/"
    table["path"] = [str(one).removeprefix(home) for one in table["path"]]
    table.round(4).to_csv(path.with_suffix(".part"), index=False)
    path.with_suffix(".part").replace(path)
    print(f"{len(table)} rows in {path}", flush=True)


def main() -> None:
    """Read the command line and make the data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=FOLDER)
    prepare(parser.parse_args().data)


if __name__ == "__main__":
    main()
