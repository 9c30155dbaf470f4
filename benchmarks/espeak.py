"""espeak-ng by its C library: a waveform and the phones it says, with their times.

The library says when each phone begins (the event PHONEME, in samples of the waveform), so the times are
those of the synthesis itself, not of an aligner. Interface: espeak-ng's `speak_lib.h`.

Shapes: T samples.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RETRIEVE, PHONEME_EVENTS, PHONEME_IPA, NO_EXIT = 1, 1, 2, 0x8000
UTF8, CHARACTERS = 1, 1
RATE, PITCH, RANGE = 1, 3, 4
LAST, WORD, PHONEME = 0, 1, 7
LIBRARIES = ("libsonic.so.0", "libpcaudio.so.0", "libespeak-ng.so.1")


class _Identifier(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@dataclass(frozen=True)
class Spoken:
    """What was said.

    Attributes:
        waveform: `(T,)` int16.
        rate: Hz.
        phones: (start, end, label) in seconds, pauses left out.
        words: second at which espeak-ng begins each word; the closure of a stop comes after it and before
            the stop's phone.
    """

    waveform: np.ndarray
    rate: int
    phones: list[tuple[float, float, str]]
    words: list[float]


class Espeak:
    """The library, loaded once for a process.

    Args:
        root: where the Debian packages were unpacked.
    """

    def __init__(self, root: Path) -> None:
        folder = root / "usr/lib/x86_64-linux-gnu"
        self._library: Any = None
        for name in LIBRARIES:  # each finds the ones before it already loaded
            self._library = ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        options = PHONEME_EVENTS | PHONEME_IPA | NO_EXIT
        self.rate: int = self._library.espeak_Initialize(RETRIEVE, 0, str(folder).encode(), options)
        if self.rate <= 0:
            raise RuntimeError(f"espeak-ng does not start with the data in {folder}")
        self._blocks: list[np.ndarray] = []
        self._events: list[tuple[int, int, str]] = []
        self._callback = _Callback(self._hear)  # kept: the library holds no reference
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, text: str, voice: str, rate: int = 150, pitch: int = 50) -> Spoken:
        """Synthesise one text.

        Args:
            text: of one sentence or word.
            voice: a language with a variant, as `de+f2`.
            rate: words a minute.
            pitch: 0 to 99.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise ValueError(f"espeak-ng has no voice {voice!r}")
        self._library.espeak_SetParameter(RATE, rate, 0)
        self._library.espeak_SetParameter(PITCH, pitch, 0)
        self._blocks, self._events = [], []
        data = text.encode() + b"\0"
        self._library.espeak_Synth(data, len(data), 0, CHARACTERS, 0, UTF8, None, None)
        self._library.espeak_Synchronize()
        waveform = np.concatenate(self._blocks) if self._blocks else np.zeros(0, np.int16)
        return Spoken(waveform, self.rate, list(self._phones(len(waveform))), self._words())

    def _hear(self, samples: Any, count: int, events: Any) -> int:
        if count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != LAST:
            event = events[index]
            label = event.id.string.decode() if event.type == PHONEME else ""
            self._events.append((event.type, event.sample, label))
            index += 1
        return 0

    def _phones(self, total: int) -> Iterator[tuple[float, float, str]]:
        said = [(sample, label) for kind, sample, label in self._events if kind == PHONEME]
        ends = [sample for sample, _ in said[1:]] + [total]
        for (start, label), end in zip(said, ends, strict=True):
            name = label.strip("ˈˌ_:| ")
            if name and end > start:
                yield start / self.rate, end / self.rate, name

    def _words(self) -> list[float]:
        return [sample / self.rate for kind, sample, _ in self._events if kind == WORD]
