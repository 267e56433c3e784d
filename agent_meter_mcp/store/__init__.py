"""Where the ledger is kept.

- `base`: the protocol. `sqlite`: the ledger's file. `memory`: the readable reference that tests compare with.
"""
