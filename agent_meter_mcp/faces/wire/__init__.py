"""What travels between the faces and the world: types at the edge, in and out.

- `fields`: the kinds of values, counts, decimals, times.
- `schema`: JSON schemas, small enough to be read by a model.
- `arguments`, `queries`: what the tools take, turned into what the ledger takes.
- `results`, `reports`, `controls`: what the tools give, made of what the ledger gives.
- `records`: alerts, control actions and open holds, for the faces that list them.
- `mistakes`: what is wrong with what was sent.
- `wording`: the sentences that go with them.
- `hooks`: the same verdict in the words of each agent harness.
"""
