"""The published documents of the interfaces between services are valid and up to date."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from keyhaul.identity.names import Role
from keyhaul.transport import openapi
from keyhaul.transport.operations import OPERATIONS, permitted

PROTO = Path(__file__).parents[3] / "proto"


def test_the_files_are_up_to_date() -> None:
    assert openapi.drifted(PROTO) == []


@pytest.mark.parametrize("role", openapi.roles())
def test_the_documents_are_valid(role: Role) -> None:
    validate(json.loads((PROTO / f"{role}.openapi.json").read_text()), cls=OpenAPIV31SpecValidator)


@pytest.mark.parametrize("role", openapi.roles())
def test_a_document_names_exactly_who_may_call(role: Role) -> None:
    paths = openapi.document(role)["paths"]
    for operation in OPERATIONS.values():
        callers = [caller for caller in Role if permitted(operation, caller, role)]
        described = paths.get(operation.path)
        assert (described["post"]["x-keyhaul-callers"] if described else []) == sorted(callers)


def test_the_command_writes_what_is_missing_and_tells_of_drift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert openapi.main(["--check", "--directory", str(tmp_path)]) == 1
    assert "is not up to date" in capsys.readouterr().err
    assert openapi.main(["--directory", str(tmp_path)]) == 0
    assert openapi.main(["--check", "--directory", str(tmp_path)]) == 0
    (tmp_path / "ckms.openapi.json").write_text("{}")
    assert openapi.main(["--check", "--directory", str(tmp_path)]) == 1
