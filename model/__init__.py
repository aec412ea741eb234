"""The model: its input (processing, shards), and all that is trained. Knows no Ray, Prefect, S3 or dataset."""
