"""Images in records: decoded once, judged, compared, written."""
