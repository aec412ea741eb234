"""An export on the Hugging Face hub: the folder as it is, in one commit of a dataset repository.

The hub's own client finds its token (`hf auth login`, $HF_TOKEN); it is never read, printed or stored here. A
repository that is made is private unless it is asked to be public: what is published is not taken back. Needs the extra
`hub`.
"""

from __future__ import annotations

import re
from pathlib import Path

from gristmill.lake.store.outage import brief

_REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_SECRET = re.compile(r"hf_\w+|(?i:bearer)\s+\S+")


class NotPushed(OSError):
    """The hub did not take it, with what it said."""


def check_repo(repo: str) -> None:
    """Raises ValueError for a name that no repository has, and where the client is not installed; before anything is
    exported."""
    if not _REPO.fullmatch(repo):
        raise ValueError(f"--push {repo!r}: give OWNER/NAME, such as acme/web-clean")
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise ValueError("--push needs the client of the hub: pip install 'gristmill[hub]'") from None


def url_of(repo: str) -> str:
    """Where the dataset will be found."""
    return f"https://huggingface.co/datasets/{repo}"


def push(folder: Path, repo: str, message: str, *, public: bool = False) -> str:
    """Uploads a finished export and returns the address of the commit. Raises NotPushed."""
    from huggingface_hub import HfApi

    api = HfApi(library_name="gristmill")
    try:
        api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            repo_type="dataset",
            folder_path=folder,
            commit_message=message,
            ignore_patterns=[".*"],
            delete_patterns=["data/*"],  # files of the version that was there before
        )
    except Exception as error:
        if not _is_the_hubs(error):
            raise
        raise NotPushed(
            f"the hub did not take {folder} to {repo}: {_SECRET.sub('***', brief(error))}. The folder is whole: run the"
            " same command again, or upload it with `hf upload`"
        ) from None
    return str(commit.commit_url)


def _is_the_hubs(error: Exception) -> bool:
    """Whether it is what the hub said, or why it could not be reached, and no defect of gristmill."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in (
        "httpx",
        "httpx2",
        "huggingface_hub",
    )
