"""What travels between the faces and the world: types at the edge, in and out.

- `fields`: the kinds of values, counts, decimals, times.
- `schema`: JSON schemas, small enough to be read by a model.
- `arguments`, `queries`: what the tools take, turned into what the ledger takes.
- `results`, `reports`, `controls`: what the tools give, made of what the ledger gives.
- `records`: alerts, control actions and open holds, for the faces that list them.
- `wording`, `rows`: the sentences that go with them, and the lines of a list.
- `mistakes`, `problems`: what is wrong with what was sent, and the one shape of an error over HTTP.
- `calls`, `bodies`: what a tool or route begins with, and what a request may bring.
- `clients`: what an MCP client calls itself.
- `settling`: how a hold ends. `hooks`: the same verdict in the words of each agent harness.
- `upstream`, `sessions`: usage as upstream's clients write it. `upstream_bodies`: what its routes take.
- `attesting`: usage that is signed for others.
- `otlp`, `telemetry`: OpenTelemetry's envelope, and the usage in it.
"""
