"""The bytes of a file: as they are stored, their compressed members and frames, and as one stream."""
