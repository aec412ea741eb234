"""Accounted, versioned training data for compact models, and a model trained on them.

    import gristmill

    web = gristmill.open("web@v3")                    # $GRIST_LAKE, or lake="s3://bucket/lake"
    frame = web.to_pandas(columns=["url", "text"])
    for record in web: ...                            # dicts, in the order of the shards

    windows = gristmill.windows("mix@v1", seed=0)     # for a trainer: any place of an endless order
    model = gristmill.load_model("base@v1", device="cuda")
    engine = gristmill.engine(model)

What stands in `__all__` is the public API; everything below it may move. Importing gristmill imports nothing else:
torch comes with the first model, pyarrow with the first version. The packages are folders beside this one, to which it
holds links; an installation has them inside. In a program they have this one name, `gristmill.lake` and so on, so that
a module `lake` or `model` of somebody's own is never taken for one of ours.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gristmill.api import Model, engine, load_model, open, windows
    from gristmill.lake.query.dataset import Dataset
    from gristmill.model.generate.engine import Engine, Options, Request
    from gristmill.model.generate.sampling import Sampling
    from gristmill.model.shards.files import ShardReader

__all__ = [
    "Dataset",
    "Engine",
    "Model",
    "Options",
    "Request",
    "Sampling",
    "ShardReader",
    "engine",
    "load_model",
    "open",
    "windows",
]

_HOMES = {
    "Dataset": "gristmill.lake.query.dataset",
    "Engine": "gristmill.model.generate.engine",
    "Options": "gristmill.model.generate.engine",
    "Request": "gristmill.model.generate.engine",
    "Sampling": "gristmill.model.generate.sampling",
    "ShardReader": "gristmill.model.shards.files",
}
"""Where a public name is defined; in `gristmill.api` where it does not stand here."""

# Links are not carried everywhere: an archive unpacked by Python's zipfile, or a checkout on Windows, has small files
# in their place. Then the packages are looked for where the links would lead.
if not os.path.isdir(os.path.join(os.path.dirname(__file__), "lake")):
    __path__.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gristmill' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES.get(name, "gristmill.api")), name)
    globals()[name] = value  # asked once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
