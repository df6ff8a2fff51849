"""Sealers: the key is kept from others, and a wrong passphrase says so."""

from __future__ import annotations

import io
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from keyhaul.config.services import StoreSection
from keyhaul.store.interface import StoreUnavailable
from keyhaul.store.key_file import KeyFileSealer
from keyhaul.store.passphrase import PassphraseSealer
from keyhaul.store.sealer import sealer_of

COST = 2**4


def says(passphrase: str) -> Callable[[bool], str]:
    return lambda new: passphrase


def sealer(path: Path, passphrase: str = "correct horse battery") -> PassphraseSealer:
    return PassphraseSealer(path / "store.db.seal", says(passphrase), cost=COST)


def test_a_key_file_is_made_once_and_read_again(tmp_path: Path) -> None:
    one = KeyFileSealer(tmp_path / "deep" / "store.key")
    assert not one.sealed()
    root = one.create()
    assert len(root) == 32
    assert one.unseal() == root
    assert stat.S_IMODE(one.place.stat().st_mode) == 0o600
    with pytest.raises(StoreUnavailable, match="exists already"):
        one.create()


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    one = KeyFileSealer(tmp_path / "store.key")
    one.create()
    one.place.chmod(0o640)
    with pytest.raises(StoreUnavailable, match="chmod 600"):
        one.unseal()


@pytest.mark.parametrize("content", ["", "xyz", "00" * 31, "0g" * 32, "00" * 40_000])
def test_a_key_file_without_a_key_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "store.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(StoreUnavailable):
        KeyFileSealer(path).unseal()


def test_a_passphrase_opens_what_it_sealed(tmp_path: Path) -> None:
    root = sealer(tmp_path).create()
    assert sealer(tmp_path).unseal() == root
    assert root.reveal() not in (tmp_path / "store.db.seal").read_bytes()
    assert stat.S_IMODE((tmp_path / "store.db.seal").stat().st_mode) == 0o600


def test_a_wrong_passphrase_says_so(tmp_path: Path) -> None:
    sealer(tmp_path).create()
    with pytest.raises(StoreUnavailable, match="passphrase is wrong"):
        sealer(tmp_path, "something else entirely").unseal()


def test_a_passphrase_is_changed_without_changing_the_root_key(tmp_path: Path) -> None:
    root = sealer(tmp_path).create()
    sealer(tmp_path).change(says("another good passphrase"))
    assert sealer(tmp_path, "another good passphrase").unseal() == root
    with pytest.raises(StoreUnavailable):
        sealer(tmp_path).unseal()


def test_a_short_passphrase_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="at least 12"):
        sealer(tmp_path, "short").create()
    assert not (tmp_path / "store.db.seal").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text.replace('"n":16', '"n":1073741824'),
        lambda text: text.replace('"n":16', '"n":15'),
        lambda text: text.replace('"format":1', '"format":2'),
        lambda text: text.replace('"p":1', '"p":1,"x":1'),
        lambda text: text.replace('"salt":"', '"salt":"AAAA'),
    ],
)
def test_a_changed_header_is_refused(tmp_path: Path, change: Callable[[str], str]) -> None:
    sealer(tmp_path).create()
    path = tmp_path / "store.db.seal"
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    with pytest.raises(StoreUnavailable):
        sealer(tmp_path).unseal()


def test_the_passphrase_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a private file\n")
    section = StoreSection(path="store.db", sealer="passphrase", passphrase_source="file", passphrase_file="secret")
    (tmp_path / "secret").chmod(0o644)
    with pytest.raises(StoreUnavailable, match="chmod 600"):
        sealer_of(section, tmp_path).create()
    (tmp_path / "secret").chmod(0o600)
    root = sealer_of(section, tmp_path).create()
    assert PassphraseSealer(tmp_path / "store.db.seal", says("from a private file")).unseal() == root


def test_the_passphrase_comes_from_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = StoreSection(path="store.db", sealer="passphrase", passphrase_source="credential")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(StoreUnavailable, match="LoadCredential=store-passphrase"):
        sealer_of(section, tmp_path).create()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(StoreUnavailable, match="LoadCredential"):
        sealer_of(section, tmp_path).create()
    (tmp_path / "store-passphrase").write_text("from the service manager")
    assert len(sealer_of(section, tmp_path).create()) == 32


def test_a_prompt_needs_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    section = StoreSection(path="store.db", sealer="passphrase", passphrase_source="prompt")
    with pytest.raises(StoreUnavailable, match="no terminal"):
        sealer_of(section, tmp_path).create()


@pytest.mark.parametrize(
    "section",
    [StoreSection(path="s"), StoreSection(path="s", sealer="passphrase", passphrase_source="file")],
)
def test_a_section_that_lacks_what_its_sealer_needs_is_refused(tmp_path: Path, section: StoreSection) -> None:
    with pytest.raises(StoreUnavailable, match="is missing"):
        sealer_of(section, tmp_path)
