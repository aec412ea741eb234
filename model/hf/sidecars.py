"""Files beside a checkpoint's weights that say how to use it: chat template, tokens by role, sampling, image sizes.

They are kept as they came, and written as they came: what is known of the model is added where they are silent, and
names of the hub's own classes become those of transformers, since no code goes along. Nothing here is interpreted.
Source: transformers 5.23, `save_pretrained` of tokenizers, processors and generation configs; its converter of phi4mm.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from gristmill.model.hf.json_files import json_object
from gristmill.model.phi4.config import ModelConfig

GENERATION = "generation_config.json"
TOKENIZER = "tokenizer_config.json"
TEMPLATES = "additional_chat_templates"
PATTERNS = (
    GENERATION,
    TOKENIZER,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    f"{TEMPLATES}/*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
)
_LARGEST = 1 << 24  # bytes
_CLASSES = {
    "Phi4MMProcessor": "Phi4MultimodalProcessor",
    "Phi4MMImageProcessor": "Phi4MultimodalImageProcessor",
    "Phi4MMAudioFeatureExtractor": "Phi4MultimodalFeatureExtractor",
}
_CLASS_FIELDS = ("processor_class", "image_processor_type", "feature_extractor_type")


def read(folder: Path) -> dict[str, str]:
    """What a checkpoint has of them, by their names in the folder. Raises ValueError that names a file."""
    files = {}
    for file in sorted(path for pattern in PATTERNS for path in folder.glob(pattern) if path.is_file()):
        if (size := file.stat().st_size) > _LARGEST:
            raise ValueError(f"{file}: {size:,} bytes; allowed are {_LARGEST:,}: no file of this name is so large")
        if file.suffix == ".json":
            json_object(file)
        try:
            files[file.relative_to(folder).as_posix()] = file.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: no UTF-8 text: {error}") from error
    return files


def write(folder: Path, config: ModelConfig, tokenizer: bytes | None, given: Mapping[str, str]) -> None:
    """Writes them: `given` as `read` gave it, completed by what `config` and a tokenizer.json tell.

    Raises ValueError for a name that `read` does not give.
    """
    for name in given:
        if not any(_fits(name, pattern) for pattern in PATTERNS):
            raise ValueError(f"{name!r} is no file beside a model's weights; allowed are {', '.join(PATTERNS)}")
    known = {GENERATION: generation_config(config)}
    if tokenizer is not None:
        known[TOKENIZER] = tokenizer_config(config, tokenizer)
    for name in sorted({*known, *given}):
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(_completed(name, given.get(name), known.get(name, {})).encode())


def _fits(name: str, pattern: str) -> bool:
    """Whether a pattern names this file, and not one of that name in a folder below."""
    return PurePosixPath(name).match(pattern) and name.count("/") == pattern.count("/")


def _completed(name: str, text: str | None, known: Mapping[str, Any]) -> str:
    """The text itself, unless something has to be added or renamed."""
    if text is not None and not name.endswith(".json"):
        return text
    values = {} if text is None else json.loads(text)
    # `auto_map` names files of code, which are not taken along and would be fetched and run.
    changed = {**known, **{field: value for field, value in values.items() if field != "auto_map"}}
    for field in _CLASS_FIELDS:
        class_name = changed.get(field)
        if isinstance(class_name, str) and class_name in _CLASSES:
            changed[field] = _CLASSES[class_name]
    return text if text is not None and changed == values else as_json(changed)


def as_json(values: Mapping[str, Any]) -> str:
    """The same values, the same text."""
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def generation_config(config: ModelConfig) -> dict[str, Any]:
    """generation_config.json: where to stop, and what to pad with."""
    text = config.text
    eos = list(text.eos_token_id)
    return {"bos_token_id": text.bos_token_id, "eos_token_id": eos, "pad_token_id": text.pad_token_id}


def tokenizer_config(config: ModelConfig, tokenizer: bytes) -> dict[str, Any]:
    """What transformers' AutoTokenizer and Phi4MultimodalProcessor need beside a tokenizer.json."""
    names = {token["id"]: token["content"] for token in json.loads(tokenizer).get("added_tokens") or []}
    text = config.text
    values: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    values["model_max_length"] = text.max_position_embeddings
    ids: dict[str, int | None] = {"bos_token": text.bos_token_id, "pad_token": text.pad_token_id}
    ids["eos_token"] = next(iter(text.eos_token_id), None)
    values |= {role: names[token] for role, token in ids.items() if token in names}
    extra: dict[str, str] = {}
    for role, part in (("image_token", config.vision), ("audio_token", config.audio)):
        if part is not None and part.token_id in names:
            extra[role] = names[part.token_id]
    return {**values, "extra_special_tokens": extra} if extra else values
