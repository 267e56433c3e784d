"""A meter behind HTTP, for tests only: the wire rules of the real one, on a real ledger, and nothing else.

`python -m tests.client.twin DB PORT`. The tests of the client know it by `conftest.command` alone, so that
the real server can take its place.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import TYPE_CHECKING, Any

import anyio
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_meter_mcp.core.errors import InvalidInput, MeterError
from agent_meter_mcp.core.roles import Caller
from agent_meter_mcp.faces.http.problems import problem, problem_of
from agent_meter_mcp.faces.wire import arguments as take
from agent_meter_mcp.faces.wire import results as give
from agent_meter_mcp.runtime import open_ledger
from agent_meter_mcp.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from agent_meter_mcp.ledger import Ledger

OPERATOR = Caller("operator", "twin")


def build_twin(ledger: Ledger, seen: list[str] | None = None) -> Starlette:
    """The routes that the client uses. `seen` gets the path of each request."""

    async def check(request: Request) -> Response:
        asked = take.CheckBudget.model_validate(await request.json())
        decision = await ledger.check(OPERATOR, asked.who(OPERATOR, asked.service), asked.usage())
        return _json(give.Decided.of(decision, ledger.now_us()))

    async def reserve(request: Request) -> Response:
        asked = take.ReserveBudget.model_validate(await request.json())
        reserved = await ledger.reserve(OPERATOR, asked.report(OPERATOR), asked.ttl_us())
        answer = give.BudgetReserved.of_reserved(reserved, ledger.now_us())
        if answer.allowed:
            return _json(answer, 201 if answer.status == "reserved" else 200)
        members = answer.model_dump(mode="json", exclude={"status"})
        stopped = answer.reasons[0].code == "kill_switch"
        return problem(
            403 if stopped else 429, "Refused", answer.message, code=answer.reasons[0].code, **members
        )

    async def settle(request: Request) -> Response:
        reservation_id = request.path_params["id"]
        sent = {**await request.json(), "reservation_id": reservation_id}
        asked = take.SettleReservation.model_validate(sent)
        if asked.action == "settle":
            recorded = await ledger.settle(OPERATOR, asked.settle())
            return _json(give.ReservationSettled.of_usage(reservation_id, recorded))
        if asked.action == "release":
            return _json(give.ReservationSettled.of_hold(await ledger.release(OPERATOR, asked.release())))
        held = await ledger.extend(OPERATOR, reservation_id, asked.extend_us())
        return _json(give.ReservationSettled.of_hold(held))

    async def batch(request: Request) -> Response:
        results = [await _recorded(ledger, sent) for sent in (await request.json())["records"]]
        for index, result in enumerate(results):
            result["index"] = index
        over = any(result.get("outcome") == "over_limit" for result in results)
        body: dict[str, Any] = {
            "accepted": sum(result.get("status") == "recorded" for result in results),
            "duplicatesIgnored": sum(result.get("status") == "duplicate" for result in results),
            "rejected": [result for result in results if "error" in result],
            "results": results,
        }
        if over:
            return problem(429, "Over budget", "stored, and over", headers={"Retry-After": "1"}, **body)
        return JSONResponse(body)

    return Starlette(
        routes=[
            Route("/v1/check", _answering(check, seen), methods=["POST"]),
            Route("/v1/reservations", _answering(reserve, seen), methods=["POST"]),
            Route("/v1/reservations/{id}/settle", _answering(settle, seen), methods=["POST"]),
            Route("/v1/usage/batch", _answering(batch, seen), methods=["POST"]),
        ]
    )


async def _recorded(ledger: Ledger, sent: dict[str, Any]) -> dict[str, Any]:
    try:
        report = take.RecordUsage.model_validate(sent).report(OPERATOR)
        recorded = await ledger.record(OPERATOR, report)
    except (MeterError, ValidationError) as error:
        code = getattr(error, "code", "invalid_input")
        return {"id": sent.get("id"), "error": str(error), "code": code}
    return give.UsageRecorded.of(recorded).model_dump(mode="json")


def _answering(
    route: Callable[[Request], Awaitable[Response]], seen: list[str] | None
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        if seen is not None:
            seen.append(request.url.path)
        try:
            return await route(request)
        except ValidationError as error:
            return problem_of(InvalidInput("request", str(error)))
        except MeterError as error:
            return problem_of(error)

    return answer


def _json(result: give.Result, status: int = 200) -> JSONResponse:
    return JSONResponse(json.loads(result.model_dump_json()), status)


async def _serve(path: str, listener: socket.socket) -> None:
    async with open_ledger(load_settings({"AGENT_METER_DB": path})) as ledger:
        server = uvicorn.Server(uvicorn.Config(build_twin(ledger), log_config=None, access_log=False))
        await server.serve([listener])


def main() -> None:
    path, port = sys.argv[1:]
    with socket.create_server(("127.0.0.1", int(port))) as listener:
        anyio.run(_serve, path, listener)


if __name__ == "__main__":
    main()
