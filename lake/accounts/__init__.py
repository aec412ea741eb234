"""Who a record is and what became of it: identities, balances, receipts, the ledger."""
