"""`grist serve`: a model behind OpenAI's API. Loads it, checks who may reach it, and says how to call it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.model.phi4.config import DTYPES
from gristmill.orchestration.show.terminal import USAGE, LakeOption, fail, open_lake, say, versions_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from gristmill.model.generate.engine import Options
    from gristmill.model.phi4.multimodal import Multimodal
    from gristmill.model.processing.text import Tokenizer

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_LENGTH = 4096
_PATIENCE = 10  # seconds that answers under way get when the server is told to end


def serve(
    model: Annotated[str, typer.Argument(metavar="FOLDER|NAME[@vN]", help="A checkpoint's folder, or a version.")],
    host: Annotated[str, typer.Option(help="The address to listen on; others than this machine's need a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    max_num_seqs: Annotated[int, typer.Option(min=4, help="Completions generated side by side.")] = 16,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            min=1, help="Tokens of the longest completion, with its prompt. Default: 4096, or less with the model."
        ),
    ] = None,
    dtype: Annotated[str | None, typer.Option(help=f"{', '.join(DTYPES)}. Default: as stored.")] = None,
    device: Annotated[str, typer.Option(help="As torch names it: cpu, cuda, cuda:1.")] = "cpu",
    max_waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait for slots; beyond: HTTP 429.")] = 256,
    max_inflight_bytes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Bytes that requests may hold together, in bodies, and in images and clips as the model takes them; "
            "beyond: HTTP 429.",
        ),
    ] = 2 << 30,
    api_key_env: Annotated[str, typer.Option(help="The environment variable with the API key.")] = "GRIST_API_KEY",
    image_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="A host that images in requests may be fetched from, HOST:PORT for another port than the usual ones, "
            "* for all; never from private addresses. Repeatable. Default: none, images come as data URLs.",
        ),
    ] = None,
    max_images: Annotated[int, typer.Option(min=1, help="Images in a request, for a model that takes images.")] = 16,
    max_crops: Annotated[
        int,
        typer.Option(min=1, help="Crops that an image is cut into, as in the mixture that the model was trained on."),
    ] = 36,
    max_clips: Annotated[int, typer.Option(min=1, help="Clips in a request, for a model that takes audio.")] = 16,
    max_clip_seconds: Annotated[
        float, typer.Option(min=0.025, help="Length of a clip, and of all in a request together.")
    ] = 1800.0,
    request_log: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A line of JSON for each request: no prompt, no key. -: on stderr."),
    ] = None,
    slots: Annotated[int | None, typer.Option(hidden=True)] = None,
    length: Annotated[int | None, typer.Option(hidden=True)] = None,
    lake: LakeOption = None,
) -> None:
    """Serve a model over HTTP, as OpenAI's API: chat completions, completions, transcriptions, models; /metrics.

    Asks for the key in $GRIST_API_KEY if that is set. Ctrl-C ends it.
    """
    # long: a parameter for each option
    for old, value, new in (("--slots", slots, "--max-num-seqs"), ("--length", length, "--max-model-len")):
        if value is not None:
            raise ValueError(f"{old} {value}: this option is called {new} now")
    key = os.environ.get(api_key_env) or None
    if host not in _LOOPBACK and key is None:
        fail(f"--host {host}: others than {', '.join(_LOOPBACK)} need an API key: set ${api_key_env}")
        raise typer.Exit(USAGE)
    check_device(device)
    check_dtype(dtype)
    from gristmill.orchestration.observe.requests import open_log

    log = open_log(request_log) if request_log is not None else None  # before a model is loaded in vain
    model = exact_name(model, lake)
    loaded, tokenizer = load_with_tokenizer(model, dtype, device, lake)

    from gristmill.model.generate.engine import Engine
    from gristmill.model.processing.detokenize import decoder
    from gristmill.orchestration.serve.clips import AudioLimits
    from gristmill.orchestration.serve.engine import HostedEngine
    from gristmill.orchestration.serve.images import ImageLimits
    from gristmill.orchestration.serve.server import make_app

    options = _options(max_num_seqs, max_model_len, loaded.config.text.max_position_embeddings)
    engine = Engine(loaded, options, decoder(tokenizer))
    name = model if "@" in model and not Path(model).is_dir() else Path(model).resolve().name
    with HostedEngine(engine, max_waiting) as hosted:
        images = ImageLimits(max_images=max_images, max_crops=max_crops, hosts=tuple(image_host or ()))
        audio = AudioLimits(max_clips=max_clips, max_seconds=max_clip_seconds, max_total_seconds=max_clip_seconds)
        app = make_app(
            hosted,
            tokenizer,
            name,
            api_key=key,
            images=images,
            audio=audio,
            max_inflight_bytes=max_inflight_bytes,
            request_log=log,
        )
        _listen(app, host, port, name, key and api_key_env)


def check_device(device: str) -> None:
    """Raises ValueError for a device that is not there, before anything is loaded."""
    import torch

    try:
        if torch.device(device).type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.zeros(1, device=device)
    # What torch says of a driver that is missing, of a device that it was not built for, of a name that is none.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        there = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device}: {reason}; on this machine there are {', '.join(there)}") from None


def _options(max_num_seqs: int, max_model_len: int | None, context: int) -> Options:
    """The engine's options: the length that was asked for, or as much as a model's context has room for, up to 4096.

    Raises ValueError.
    """
    from gristmill.model.generate.engine import Options

    if max_model_len is not None and max_model_len > context:
        raise ValueError(f"--max-model-len {max_model_len}: the model's context is {context} tokens")
    length = min(_LENGTH, context) if max_model_len is None else max_model_len
    block_size = _block_size(length, exact=max_model_len is not None)
    if not block_size:
        raise ValueError(f"--max-model-len {length}: allowed are multiples of 4")
    return Options(
        max_num_seqs,
        length - length % block_size,
        prefill_chunk_size=min(32, block_size),
        block_size=block_size,
    )


def _block_size(length: int, exact: bool) -> int:
    """The largest page that fits; `exact`: the length has to be whole pages of it. 0: there is none."""
    for size in (128, 64, 32, 16, 8, 4):
        if size <= length and not (exact and length % size):
            return size
    return 0


def check_dtype(dtype: str | None) -> None:
    """Raises ValueError for one that no weights are loaded in."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"--dtype {dtype}: allowed are {', '.join(DTYPES)}")


def exact_name(model: str, lake: str | None) -> str:
    """NAME@vN of the newest version where a dataset of the lake is named; a folder, and what names a version, as it is.
    Raises FileNotFoundError for neither."""
    if "@" in model or Path(model).is_dir():
        return model
    from gristmill.pipelines.settings.config import BadConfig

    try:
        versions = versions_of(lake)
        if model in versions.names():
            return str(versions.resolve(model))
    except (BadConfig, FileNotFoundError):
        pass  # there is no lake: then a folder was meant
    raise FileNotFoundError(f"{model}: no such folder, and no dataset of the lake")


def load_with_tokenizer(model: str, dtype: str | None, device: str, lake: str | None) -> tuple[Multimodal, Tokenizer]:
    """Of a checkpoint's folder or a version of the lake. Raises ValueError, FileNotFoundError, and what `load_model`
    raises."""
    folder = Path(model)
    if folder.is_dir():
        import torch

        from gristmill.model.hf.checkpoint import load_hf
        from gristmill.model.processing.text import Tokenizer

        tokenizer = Tokenizer.from_bytes((folder / "tokenizer.json").read_bytes())
        loaded = load_hf(folder, dtype=getattr(torch, dtype) if dtype else None, device=device)
        tokenizer.check_fits(loaded.config.text.vocab_size)
        return loaded, tokenizer

    from gristmill.stages.models.model_versions import load_model

    version = load_model(open_lake(lake), model, dtype=dtype, device=device)
    if version.tokenizer is None:
        raise ValueError(f"{model} has no tokenizer: it cannot be served")
    return version.model, version.tokenizer


def _listen(app: FastAPI, host: str, port: int, name: str, key_env: str | None) -> None:
    import uvicorn

    from gristmill.orchestration.serve.wire import server_config

    class Server(uvicorn.Server):
        """Says how to call it as soon as it can be called."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                at = self.servers[0].sockets[0].getsockname()
                say(_how_to_call(f"[{at[0]}]" if ":" in at[0] else at[0], at[1], name, key_env))

    with suppress(KeyboardInterrupt):  # uvicorn has ended in good order, and then tells us why
        Server(server_config(app, host, port, log_level="warning", timeout_graceful_shutdown=_PATIENCE)).run()


def _how_to_call(host: str, port: int, name: str, key_env: str | None) -> str:
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "Hello"}]})
    key = f' -H "Authorization: Bearer ${key_env}"' if key_env else ""
    url = f"http://{host}:{port}/v1"
    return f"{name} at {url}   curl {url}/chat/completions{key} -d '{body}'"
