"""Filters: pure rules over a batch of documents; they know nothing of Ray, stores, or of each other.

A filter measures a batch (`measure`) and judges the measures (`rule`): the measures are stored, so a
threshold is retuned by replaying `rule` without a rerun. Judging gives a reason for each dropped document and
null for each kept one; it never edits text, never drops a row, and holds no state across rows. Words and
symbols are computed once a batch in `filters.text.docs` and shared. Import filters from their own modules: this one
imports nothing.
"""
