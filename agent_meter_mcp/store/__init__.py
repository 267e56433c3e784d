"""Where the ledger is kept:

the protocol (`base`), SQLite (`sqlite`), and the readable reference (`memory`).
"""
