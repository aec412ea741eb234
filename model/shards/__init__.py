"""Windows in tars, read in an order that answers for any place."""
