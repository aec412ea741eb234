"""Pictures of a kickoff in Prefect's and Ray's own pages, for docs/operations.md.

`python -m benchmarks.screenshots DIR [FLOW_RUN]` in a shell that speaks to a stack (`eval "$(grist env)"`) that has run
a kickoff: that one, or the last. Chromium and Playwright are needed. Both servers want their secret with each request:
it goes into headers, and into no picture.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from gristmill.orchestration.announce import JOB_SERVER, SERVER, prefect_server
from gristmill.orchestration.stack.health import Server

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
WIDTH = 1400
"""Pixels of the window, in which an artifact has to be readable."""


def main(folder: Path, flow_run: str = "") -> None:
    """Writes a picture of each page into the folder."""
    prefect = prefect_server()
    page = os.environ[SERVER].removesuffix("/api")
    kickoffs = {"flows": {"name": {"any_": ["kickoff"]}}, "sort": "START_TIME_DESC"}
    run = flow_run or newest(prefect, "/flow_runs/filter", kickoffs)["id"]
    funnel = newest(
        prefect, "/artifacts/filter", {"artifacts": {"key": {"like_": "documents-%"}}, "sort": "CREATED_DESC"}
    )
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).read_text().strip()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        for name, address, height in (
            ("kickoff", f"/runs/flow-run/{run}", 500),
            ("funnel", f"/artifacts/artifact/{funnel['id']}", 620),
        ):
            picture(browser, f"{page}{address}", prefect.authorization, folder / f"{name}.png", height)
        picture(browser, f"{os.environ[JOB_SERVER]}/#/jobs", f"Bearer {token}", folder / "jobs.png", 600)
        browser.close()


def newest(server: Server, path: str, query: dict[str, Any]) -> dict[str, Any]:
    """The first that the server answers."""
    return dict(server.ask(path, {**query, "limit": 1}, timeout=60)[0])


def picture(browser: Browser, address: str, authorization: str, file: Path, height: int) -> None:
    """The page as it looks when it has stopped loading."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": height}, extra_http_headers={"Authorization": authorization}
    )
    page = context.new_page()
    page.goto(address, wait_until="load", timeout=300_000)
    page.wait_for_timeout(15_000)  # these pages ask their servers for ever: there is no event of being done
    page.screenshot(path=file, timeout=300_000)
    context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
