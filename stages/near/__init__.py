"""Near duplicates: signatures, bands, links between documents."""
