"""The rules by which a conformance run is judged, and that expected.json follows them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.conformance.run import SPECS
from tests.conformance.suite import LISTED, RESULT, Check
from tests.conformance.verdict import PASSES, WIRE_CHECK, Expected, Known, Outcome, Row

KNOWN = Known(result="fail", checks=frozenset({"a"}), reason="not offered")


def row(known: Known | None, **checks: str) -> Row:
    return Row("2026-07-28", "scenario", [Check(name, status, "") for name, status in checks.items()], known)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [("SUCCESS", "pass"), ("FAILURE", "fail"), ("WARNING", "fail"), ("SKIPPED", "skip"), ("INFO", "skip")],
)
def test_a_scenario_is_as_good_as_its_worst_check(status: str, outcome: Outcome) -> None:
    assert row(PASSES, a=status).outcome == outcome


def test_a_scenario_in_which_only_the_wire_was_checked_tested_nothing() -> None:
    assert row(PASSES, **{WIRE_CHECK: "SUCCESS"}).outcome == "skip"


def test_a_known_failure_is_expected_and_a_further_one_is_not() -> None:
    assert row(KNOWN, a="FAILURE", b="SUCCESS").expected
    assert not row(KNOWN, a="FAILURE", b="FAILURE").expected


def test_a_pass_where_a_failure_is_known_is_unexpected() -> None:
    assert not row(KNOWN, a="SUCCESS").expected


def test_a_scenario_that_expected_json_does_not_name_is_unexpected() -> None:
    assert not row(None, a="SUCCESS").expected


def test_details_name_each_failing_check_and_each_that_no_longer_fails() -> None:
    known = Known(result="fail", checks=frozenset({"a", "gone"}), reason="not offered")
    details = "\n".join(row(known, a="FAILURE", b="WARNING").details())
    assert "known   a" in details
    assert "WARNING b" in details
    assert "gone is expected to fail and did not" in details


def test_what_does_not_pass_needs_a_reason_and_a_failure_its_checks() -> None:
    with pytest.raises(ValidationError, match="needs its reason"):
        Known(result="skip")
    with pytest.raises(ValidationError, match="names its failing checks"):
        Known(result="fail", reason="why")


def test_expected_json_has_every_spec_version_and_plain_runs_a_part_of_the_full_run() -> None:
    expected = Expected.read()
    for spec in SPECS:
        assert set(expected.known(spec, plain=True)) < set(expected.known(spec, plain=False))


def test_the_suites_list_and_result_folders_are_understood() -> None:
    listed = LISTED.search("Server scenarios:\n  - tools-list [2025-11-25,2026-07-28]\n")
    assert listed is not None
    assert (listed["name"], listed["specs"]) == ("tools-list", "2025-11-25,2026-07-28")
    result = RESULT.fullmatch("server-sep-2164-resource-not-found-2026-11-24T00-07-08-064Z")
    assert result is not None
    assert result["name"] == "sep-2164-resource-not-found"
