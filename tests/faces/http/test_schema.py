"""Whatever the routes are sent, in the document's words or against them: they do not fail, and keep to it."""

# schemathesis leaves its own types half open
# pyright: reportMissingTypeArgument=false, reportUntypedFunctionDecorator=false, reportUnknownMemberType=false
# pyright: reportUnknownParameterType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .serving import served_site
from .test_document import DOCUMENT

if TYPE_CHECKING:
    from schemathesis import Case

CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
WITHOUT_KEYS = {name: told for name, told in DOCUMENT.items() if name != "security"}
schema = schemathesis.openapi.from_dict(WITHOUT_KEYS).exclude(path="/v1/stream")  # it does not end


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with served_site(tmp_path_factory.mktemp("schema")) as url:
        yield url


@schema.parametrize()
@settings(max_examples=20, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_every_answer_is_as_the_document_says(case: Case, url: str) -> None:
    # A batch of upstream's is stored as far as it can be: a record that is wrong is named in a 200.
    strict = [] if "upstream" in (case.operation.tags or ()) else [negative_data_rejection]
    case.call_and_validate(base_url=url, checks=[*CHECKS, *strict])
