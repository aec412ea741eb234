"""`python -m pipelines run conf/web.yaml`, in a checkout or in a Ray job's working directory: a door and nothing else.

By this name Python knows the folder as `pipelines`. All code is imported as `gristmill.pipelines`, and so only once.
"""

from __future__ import annotations

import sys

from gristmill.pipelines.command import main

if __name__ == "__main__":
    sys.exit(main())
