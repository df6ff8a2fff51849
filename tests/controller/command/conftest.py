"""A controller that stands, and commands run against it as from a shell."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controller.state.database import open_database
from keyhaul.command.main import run
from tests.controller.command.standing import Standing, standing
from tests.controller.northbound.scene import Scene
from tests.keyhaul.transport.pki import Pki


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    error: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def words(self) -> str:
        """What it printed, with the layout of tables taken out."""
        return " ".join(self.out.replace("─", " ").split())


Keyhaul = Callable[..., Outcome]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    database = open_database("sqlite:///controller.db", tmp_path_factory.mktemp("state"))
    scene = Scene(database)
    scene.take_on("a1" * 16, "bronze", 0)
    scene.take_on("b2" * 16, "gold", 800)
    yield scene
    database.close()


@pytest.fixture(scope="module")
def stands(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    folder = tmp_path_factory.mktemp("lab")
    with standing(scene, Pki.make(folder / "pki"), folder / "network") as found:
        yield found


@pytest.fixture
def keyhaul(stands: Standing, capsys: pytest.CaptureFixture[str]) -> Keyhaul:
    """Runs a command line against the controller."""

    def command(*arguments: str | Path, network: bool = True) -> Outcome:
        where = ["--network", str(stands.directory)] if network else []
        capsys.readouterr()
        code = run([*map(str, arguments), *where])
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return command
