"""Pictures and clips as data URIs, decoded and written anew, so that no foreign byte reaches a browser's decoders.

A page has room for MOST_BYTES of them; what comes after that is named and left out, so that a page can be opened and
mailed. Pictures are shrunk to the room that they get; of a clip the first seconds are heard, and all that the house's
spectrograms show is seen.
"""

from __future__ import annotations

import base64
import io
import wave

import numpy as np
from PIL import Image

from gristmill.model.processing.audio_file import audio_header, decode_audio
from gristmill.model.processing.image_file import MOST_PIXELS, decode_image
from gristmill.model.processing.medium_error import MediumError
from gristmill.orchestration.report.html import Content, Html, element, joined
from gristmill.orchestration.report.pieces import figure
from gristmill.orchestration.show.spectrogram import MOST_SECONDS, clip_picture, spectrogram

MOST_BYTES = 16_000_000
"""Of data URIs of a page."""
SIDE = 640
"""Pixels that a picture may be wide or high."""
SMALL = 128
"""Pixels up to which a picture is shown enlarged, pixel by pixel."""
HEARD_SECONDS, HEARD_BYTES = 12.0, 500_000
"""Of a clip, at most."""
SPECTROGRAM_WIDTH = 480


class Room:
    """What is left of the bytes of a page."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self.left = most

    def taken(self, data: bytes, kind: str) -> str | None:
        """The data URI of these bytes; None where there is no room for them."""
        text = f"data:{kind};base64,{base64.b64encode(data).decode()}"
        if len(text) > self.left:
            return None
        self.left -= len(text)
        return text


def picture(room: Room, pixels: np.ndarray, alt: str, class_: str = "") -> Html:
    """uint8 [height, width, 3] as an image."""
    image = Image.fromarray(pixels)
    small = max(image.size) <= SMALL
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    out = io.BytesIO()
    if image.width * image.height <= SMALL * SMALL * 4:
        image.save(out, "PNG")
        kind = "image/png"
    else:
        image.save(out, "JPEG", quality=85)
        kind = "image/jpeg"
    uri = room.taken(out.getvalue(), kind)
    if uri is None:
        return element("p", f"{alt}: left out, the page is full", class_="dim")
    class_ = class_ or ("small" if small else "")
    return element("img", src=uri, alt=alt, width=image.width, height=image.height, class_=class_ or None)


def player(room: Room, waveform: np.ndarray, rate: int, about: str) -> Html:
    """Floats [samples], full scale at -1 and 1, as a player of 16-bit samples."""
    most = min(round(HEARD_SECONDS * rate), HEARD_BYTES // 2)
    samples = (np.clip(waveform[:most], -1, 1) * 32767).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    uri = room.taken(out.getvalue(), "audio/wav")
    if uri is None:
        return element("p", f"{about}: left out, the page is full", class_="dim")
    return element("audio", controls=True, preload="metadata", src=uri, aria_label=about)


def image_figure(room: Room, data: bytes, alt: str, caption: Content) -> Html:
    """An image file with what is said of it; one that cannot be decoded says why."""
    try:
        return figure(caption, picture(room, decode_image(data, MOST_PIXELS), alt))
    except MediumError as error:
        return figure(caption, element("p", str(error), class_="dim"))


def clip_figure(room: Room, data: bytes, alt: str, caption: Content) -> Html:
    """An audio file as its spectrogram with a player; one that cannot be decoded says why."""
    try:
        header = audio_header(data)
        most = max(1, round(HEARD_SECONDS * header.rate))
        waveform, rate = decode_audio(data, 0, most if header.samples > most else None)
        drawn = picture(room, clip_picture(data, SPECTROGRAM_WIDTH), f"Spectrogram of {alt}", "wide")
    except MediumError as error:
        return figure(caption, element("p", str(error), class_="dim"))
    seconds = header.seconds
    heard = min(len(waveform) / rate, HEARD_SECONDS, HEARD_BYTES / 2 / rate)
    parts = [f"{seconds:.1f} s at {header.rate:,} Hz"]
    parts += [f"the first {heard:.0f} s are heard"] if heard < seconds - 0.5 else []
    parts += [f"the first {MOST_SECONDS:.0f} s are drawn"] if seconds > MOST_SECONDS else []
    about = element("span", ", ".join(parts), class_="dim")
    return figure(joined([caption, element("br"), about]), drawn, player(room, waveform, rate, f"Player of {alt}"))


def mel_figure(room: Room, mel: np.ndarray, alt: str, caption: Content) -> Html:
    """Frames of log-Mel, float32 [frames, 80], as an encoder is given them."""
    frames = mel[: round(MOST_SECONDS * 100)]
    return figure(caption, picture(room, spectrogram(frames, SPECTROGRAM_WIDTH), f"Log-Mel frames of {alt}", "wide"))
