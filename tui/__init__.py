"""The operator's terminal. It knows a reader of the ledger, never the store or a face."""
