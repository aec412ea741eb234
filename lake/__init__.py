"""Where data lives: the store, objects, receipts, the ledger of fates, dataset versions.

Notable choice: a lake is read with `gristmill.open`, which is `open` here. Nothing in this package imports Ray at its
start, but for `Dataset.to_ray`, which needs it when it is called.
"""

from gristmill.lake.query.dataset import Dataset, open

__all__ = ["Dataset", "open"]
