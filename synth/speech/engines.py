"""Which engines of speech there are: the embedded one by its name, any other by the address of what makes it."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from gristmill.synth.speech.espeak import Espeak
from gristmill.synth.speech.tts import TTS, NoEngine

EMBEDDED = "espeak"


@lru_cache(maxsize=4)
def engine(address: str) -> TTS:
    """`espeak`, or `module:object`, which is called without arguments, once a process: what it loads stays loaded.
    Raises NoEngine where it is none."""
    if address == EMBEDDED:
        return Espeak()
    module, colon, name = address.partition(":")
    if not (module and colon and name.isidentifier()):
        raise NoEngine(f"tts={address!r}: {EMBEDDED}, or module:object, an engine of your own (synth/speech/tts.py)")
    try:
        maker = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise NoEngine(
            f"tts={address!r} cannot be imported: {error}. Is it on the PYTHONPATH of the workers?"
        ) from error
    speaker = maker()
    if not isinstance(speaker, TTS):
        raise NoEngine(f"tts={address!r} gives a {type(speaker).__name__}, which has not version, check and say")
    return speaker
