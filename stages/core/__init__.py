"""What every stage stands on: work, chunks of records, fates, exclusions, shards."""
