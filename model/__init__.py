"""The model: its input (processing, shards), and all that is trained. Knows nothing of Ray, Prefect, S3, or datasets."""
