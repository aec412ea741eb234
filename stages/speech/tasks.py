"""Tasks: what a row with a clip is a sample of, as turns of a conversation.

asr: what is said. ast: the same in another language; ast_cot: both, as a chain of thought. sqa: a question in writing
about what is said. sqqa: the question is what is said. summary, understanding: of a clip as a whole. chat: the turns
stand in the row. unlabelled: the request to transcribe, which nobody has answered yet. What is said (`spoken`), where
a row tells it, is what its clip is judged by, whatever is learned.
Source: Microsoft 2025, arXiv 2503.01743, 4.2; `<sep>` as in the prompts of microsoft/Phi-4-multimodal-instruct.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gristmill.model.processing.chat.conversation import BadSample
from gristmill.model.processing.segments import SEPARATOR, Segment, translated
from gristmill.stages.media.fields import first_text, optional_text
from gristmill.stages.media.turns import AUDIO
from gristmill.stages.read.reading import content_hash
from gristmill.stages.speech.prompts import LANGUAGES, asked, tag

Task = Literal["asr", "ast", "ast_cot", "sqa", "sqqa", "summary", "understanding", "chat", "unlabelled"]
TASKS: tuple[Task, ...] = (
    "asr", "ast", "ast_cot", "sqa", "sqqa", "summary", "understanding", "chat", "unlabelled",
)  # fmt: skip
TRANSLATIONS = ("ast", "ast_cot")
NEEDED = ("transcript", "translation", "question", "answer", "summary", "language", "target")


@dataclass(frozen=True)
class Fields:
    """What fields of rows are called: of several the first that a row has."""

    audio: tuple[str, ...] = (
        "audio", "audios", "file", "files", "file_name", "file_names", "path", "audio_filepath", "audio_path",
    )  # fmt: skip
    transcript: tuple[str, ...] = ("text", "transcript", "transcription", "sentence")
    translation: tuple[str, ...] = ("translation",)
    question: tuple[str, ...] = ("question",)
    answer: tuple[str, ...] = ("answer",)
    summary: tuple[str, ...] = ("summary",)
    language: tuple[str, ...] = ("language", "lang", "locale")
    target: tuple[str, ...] = ("target_language", "target_lang")
    start: tuple[str, ...] = ("start", "offset")
    end: tuple[str, ...] = ("end",)
    duration: tuple[str, ...] = ("duration",)

    def __post_init__(self) -> None:
        for name in NEEDED:
            if not getattr(self, name):
                raise ValueError(f"fields.{name}=[]: name at least one field")


class Said(NamedTuple):
    """What a row says of its clips. `spoken`: what is said in them, None where it does not tell; `language`: in which;
    `learned`: the language of a transcript or translation that is learned, None of other answers."""

    prompt: str
    response: str
    spoken: str | None
    language: str | None
    learned: str | None


class Defaults(NamedTuple):
    """Where a row has no `language` or `target` of its own; "" for none. `prompts`: instead of the templates."""

    language: str = ""
    target: str = ""
    prompts: tuple[str, ...] = ()


def words_of(row: Mapping[str, Any], task: Task, fields: Fields, defaults: Defaults) -> Said:
    """The turns of a row that is no chat. Raises BadSample: no_field, not_text, language, no_target, target,
    same_language."""
    spoken_in = language_of(row, fields.language, defaults.language)
    spoken = optional_text(row, fields.transcript)

    def ask(response: str, into: str | None = None) -> str:
        """A prompt that is drawn by what is answered: copies of a clip are asked alike."""
        drawn = int(content_hash(response)[:8], 16)
        if defaults.prompts:
            return defaults.prompts[drawn % len(defaults.prompts)]
        return asked("asr" if task == "unlabelled" else task, spoken_in, into, drawn)

    if task in TRANSLATIONS:
        into = language_of(row, fields.target, defaults.target, "target")
        if into is None:
            raise BadSample("no_target", ", ".join(fields.target))
        if into == spoken_in:
            raise BadSample("same_language", into)
        translation = first_text(row, fields.translation)
        if task == "ast":
            return Said(ask(translation, into), translation, spoken, spoken_in, into)
        both = f"{first_text(row, fields.transcript)} {SEPARATOR} {translation}"
        return Said(ask(both, into), both, spoken, spoken_in, into)
    if task == "asr":
        transcript = first_text(row, fields.transcript)
        return Said(ask(transcript), transcript, transcript, spoken_in, spoken_in)
    if task == "unlabelled":
        return Said(ask(""), "", spoken, spoken_in, None)
    if task == "summary":
        summary = first_text(row, fields.summary)
        return Said(ask(summary), summary, spoken, spoken_in, None)
    answer = first_text(row, fields.answer)
    if task == "sqqa":  # the written question is what is said
        question = optional_text(row, fields.question)
        return Said("", answer, spoken if question is None else question, spoken_in, None)
    prompt = optional_text(row, fields.question) if task == "understanding" else first_text(row, fields.question)
    return Said(ask(answer) if prompt is None else prompt, answer, spoken, spoken_in, None)


def learned_of(parts: Sequence[Segment], task: Task) -> str:
    """What of a sample the loss counts, as a text; of a transcript with its translation the latter, which has one
    language."""
    text = "\n".join(part.text for part in parts if part.loss_mask and not part.special)
    return translated(text) if task == "ast_cot" else text


def language_of(row: Mapping[str, Any], names: Sequence[str], default: str, reason: str = "language") -> str | None:
    """The tag of a row, one of LANGUAGES; None where neither it nor the default says. Raises BadSample."""
    label = optional_text(row, names) or default
    if not label:
        return None
    language = tag(label)
    if language not in LANGUAGES:
        raise BadSample(reason, f"{label[:20]}: not one of {' '.join(LANGUAGES)}")
    return language


def turns(words: Said, clips: int, system: str | None) -> list[dict[str, str]]:
    """As messages; the clips of a user who asks nothing stand alone, and a request without a response is the last."""
    prompt = words.prompt
    if not prompt.strip():
        prompt = "".join(AUDIO.placeholder(number) for number in range(1, clips + 1))
    messages = [{"role": "user", "content": prompt}]
    if words.response:
        messages.append({"role": "assistant", "content": words.response})
    return messages if system is None else [{"role": "system", "content": system}, *messages]
