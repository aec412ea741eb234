"""Clips in records: decoded once, cut where a manifest says so, judged, compared, written."""
