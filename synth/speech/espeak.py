"""espeak-ng within this process, through ctypes, from the package espeakng-loader. Notable choices:

- the library keeps a state from text to text (phases, flutter, noise) that no call of it resets, and seeds its noise by
  the clock: so it is loaded for each text, seeded, and unloaded, some milliseconds, which leave no state behind;
- where it stays loaded, because another package of the process uses it too, that is an error: the sound would depend on
  what was said before;
- a lock guards it, since it is one of a process; a text is bounded in characters, its sound in seconds.

Loading leaves some 2 kB behind that the library never frees. espeak-ng is under the GPL 3, and comes with that package.
Source: speak_lib.h and espeak_ng.h of espeak-ng 1.52.
"""

from __future__ import annotations

import ctypes
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from threading import Lock

import numpy as np

from gristmill.synth.speech.tts import WORDS_PER_MINUTE, NoEngine, NotSpoken, Waveform

MOST_CHARACTERS = 2000
MOST_SECONDS = 120.0
PITCH = 50
"""Of a voice as it is; from 0 to 99."""
PACES = (80, 450)
"""Words a minute that it keeps to."""
_SYNCHRONOUS, _NO_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH = 1, 3  # numbers of parameters
_MISSING = (
    "espeak-ng is not installed: pip install 'gristmill[speech]' (the package espeakng-loader), or name another engine"
    " as module:object"
)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_LOCK = Lock()


class Espeak:
    """An engine (tts.py). Voices: a language of espeak-ng, such as en-us, cmn or de, and behind a + a variant of it,
    such as m1 to m8, f1 to f5. Raises NoEngine where the package is not installed."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise NoEngine(_MISSING) from error
        self._path, self._data = espeakng_loader.get_library_path(), Path(espeakng_loader.get_data_path())
        self._known: set[str] = set()  # voices that were asked for

    @cached_property
    def version(self) -> str:
        """Of espeak-ng, and of the package that it came in."""
        with self._loaded() as (library, _):
            release = library.espeak_Info(None).decode()
        return f"espeak-ng {release}, espeakng-loader {version('espeakng-loader')}"

    def check(self, voice: str) -> None:
        """Raises ValueError for a voice that it has not."""
        if voice in self._known:
            return
        _, plus, variant = voice.partition("+")
        # An unknown variant would be passed over in silence.
        known = not plus or variant in {path.name for path in (self._data / "voices" / "!v").iterdir()}
        if known:
            with self._loaded() as (library, _):
                known = library.espeak_SetVoiceByName(voice.encode()) == 0
        if not known:
            raise ValueError(
                f"espeak-ng has no voice {voice!r}: a language such as en-us, de, fr, it, ja, pt, es or cmn, and behind"
                " a + a variant such as m1 or f2"
            )
        self._known.add(voice)

    def say(self, text: str, voice: str, rate: int = WORDS_PER_MINUTE, pitch: int = PITCH) -> Waveform:
        """Raises NotSpoken: nothing_to_say, control (a character), too_long, too_many_seconds; ValueError for a voice
        that it has not, and for a rate or pitch out of range."""
        if not PACES[0] <= rate <= PACES[1] or not 0 <= pitch <= 99:
            raise ValueError(f"rate={rate}, pitch={pitch}: {PACES[0]} to {PACES[1]} words a minute, and 0 to 99")
        data = _speakable(text).encode()
        self.check(voice)
        with self._loaded() as (library, hertz):
            sound = _Sound(MOST_SECONDS, hertz)
            callback = _Callback(sound.take)
            library.espeak_SetSynthCallback(callback)
            library.espeak_ng_SetRandSeed(0)
            _done(library.espeak_SetVoiceByName(voice.encode()), "espeak_SetVoiceByName")
            _done(library.espeak_SetParameter(_RATE, rate, 0), "espeak_SetParameter")
            _done(library.espeak_SetParameter(_PITCH, pitch, 0), "espeak_SetParameter")
            _done(library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None), "espeak_Synth")
            return sound.waveform()

    @contextmanager
    def _loaded(self) -> Iterator[tuple[ctypes.CDLL, int]]:
        """The library, as new, and samples a second. Raises NoEngine."""
        with _LOCK:
            self._refuse_resident()
            library = ctypes.CDLL(self._path)
            try:
                library.espeak_Info.restype = ctypes.c_char_p
                library.espeak_Synth.argtypes = [
                    ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int, ctypes.c_uint, ctypes.c_uint,
                    ctypes.c_void_p, ctypes.c_void_p,
                ]  # fmt: skip
                library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
                hertz = int(library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(self._data), _NO_EXIT))
                if hertz <= 0:
                    raise NoEngine(f"espeak-ng does not start from {self._data}: is the package espeakng-loader whole?")
                yield library, hertz
                library.espeak_Terminate()
            finally:
                _unload(library)

    def _refuse_resident(self) -> None:
        try:
            resident = ctypes.CDLL(self._path, mode=os.RTLD_NOLOAD)
        except OSError:
            return
        _unload(resident)
        raise NoEngine(
            f"{self._path} stays loaded in this process (another package uses it, or this system unloads no library):"
            " what it says would depend on what it said before. Use it in a process of its own"
        )


class _Sound:
    """What the library says, block by block, up to a bound."""

    def __init__(self, seconds: float, rate: int) -> None:
        self._most, self._rate = round(seconds * rate), rate
        self._blocks: list[np.ndarray] = []
        self._count = 0

    def take(self, block: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        """Called by the library; not 0: it has to stop."""
        if block and count > 0:
            self._count += count
            if self._count <= self._most:
                self._blocks.append(np.ctypeslib.as_array(block, (count,)).copy())
        return int(self._count > self._most)

    def waveform(self) -> Waveform:
        """All of it. Raises NotSpoken."""
        if self._count > self._most:
            raise NotSpoken("too_many_seconds", f"allowed are {self._most / self._rate:g}")
        blocks = self._blocks or [np.zeros(0, np.int16)]
        samples = np.concatenate(blocks).astype(np.float32) / np.float32(32768)
        if not np.any(np.abs(samples) > 0.01):
            raise NotSpoken("nothing_to_say", "the engine says nothing")
        return Waveform(samples, self._rate)


def _speakable(text: str) -> str:
    """The text, with line ends as spaces. Raises NotSpoken."""
    if len(text) > MOST_CHARACTERS:
        raise NotSpoken("too_long", f"{len(text)} characters, allowed are {MOST_CHARACTERS}")
    flat = " ".join(text.split())
    # To the library a control character begins a command, and zero ends the text; a lone surrogate is no UTF-8.
    for character in flat:
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise NotSpoken("control", f"the character {ord(character):#x}")
    if not any(character.isalnum() for character in flat):
        raise NotSpoken("nothing_to_say", "no letter and no digit")
    return flat


def _done(code: int, call: str) -> None:
    if code:
        raise RuntimeError(f"{call} of espeak-ng failed with code {code}")


def _unload(library: ctypes.CDLL) -> None:
    dlclose = ctypes.CDLL(None).dlclose
    dlclose.argtypes = [ctypes.c_void_p]
    dlclose(library._handle)
