"""Where data lives: the store, objects, receipts, the ledger of fates, dataset versions.

from gristmill import lake
web = lake.open("web@v3")            # the lake is $GRIST_LAKE, or lake.open(..., lake="s3://bucket/prefix")
web.to_arrow(columns=["text"])       # pyarrow.Table
web.ledger()                         # what became of every record
"""

from gristmill.lake.query.dataset import Dataset, open

__all__ = ["Dataset", "open"]
