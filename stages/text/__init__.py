"""From a record to clean text and the verdicts of filters."""
