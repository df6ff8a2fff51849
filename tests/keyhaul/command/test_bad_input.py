"""Bad input on every command: an exit code, one clear error, no traceback, nothing half done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyhaul.command.laboratory.files import Laboratory
from keyhaul.command.link import link
from keyhaul.command.main import run
from keyhaul.command.network import network
from keyhaul.command.output import print_table, size
from keyhaul.command.pki import pki
from keyhaul.command.sae import sae
from keyhaul.command.store import store
from keyhaul.config.addresses import parse_address

ROOT = Path(__file__).parents[3]
SMALL = ROOT / "tests/network/small.toml"


@pytest.fixture
def copy(laid_out: Path, tmp_path: Path) -> Path:
    """A laboratory's list of services, with nothing behind it."""
    shutil.copy(laid_out / "network.json", tmp_path / "network.json")
    return tmp_path


def test_an_empty_path_does_not_mean_the_present_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(network, ["init", str(SMALL), "--out", ""])
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])


def test_a_network_that_cannot_be_laid_out_there_is_told_by_the_name_that_was_given() -> None:
    done = CliRunner().invoke(network, ["init", str(SMALL), "--out", "/proc/network"])
    assert done.exit_code == 1
    assert "/proc/network cannot be made" in done.stderr


@pytest.mark.parametrize("option", [["--timeout", "0"], ["--timeout", "nan"], ["--role", "x"], ["--node", "x"]])
def test_options_of_up_that_make_no_sense(copy: Path, option: list[str]) -> None:
    done = CliRunner().invoke(network, ["up", str(copy), *option])
    assert done.exit_code == 2
    assert not (copy / "run").exists()


@pytest.mark.parametrize(
    "services",
    [
        3,
        [1],
        [{"role": 1}],
        [{"role": "ckms", "node": "1", "id": "ckms-1", "metrics": 4, "config": "c", "socket": "s"}],
        [{"role": "ckms", "node": "1", "id": "ckms-1", "metrics": "x", "config": "c", "socket": "s"}],
    ],
)
@pytest.mark.parametrize("command", ["up", "down", "status"])
def test_a_damaged_list_of_services(tmp_path: Path, services: object, command: str) -> None:
    (tmp_path / "network.json").write_text(json.dumps({"services": services}))
    done = CliRunner().invoke(network, [command, str(tmp_path)])
    assert (done.exit_code, isinstance(done.exception, SystemExit)) == (1, True)
    assert "is not what `keyhaul network init` writes" in done.stderr


@pytest.mark.parametrize("options", [[], ["--detach"]])
def test_a_directory_that_cannot_be_written_to(copy: Path, options: list[str]) -> None:
    (copy / "logs").write_text("in the way")
    (copy / "run").write_text("in the way")
    done = subprocess.run(
        [sys.executable, "-m", "keyhaul.command.main", "network", "up", str(copy), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "must be writable" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_networks_on_the_same_addresses(copy: Path) -> None:
    taken = Laboratory.read(copy).services[0].metrics
    with socket.create_server(parse_address(taken)):
        done = CliRunner().invoke(network, ["up", str(copy), "--detach"])
    assert done.exit_code == 1
    assert taken in done.stderr
    assert "--loopback" in done.stderr
    assert not (copy / "run").exists()


def test_a_network_that_is_down_is_stopped_again(copy: Path) -> None:
    done = CliRunner().invoke(network, ["down", str(copy), "--json"])
    assert (done.exit_code, json.loads(done.stdout)["was_up"]) == (0, False)


def test_an_interrupt_while_a_network_starts_in_the_background_stops_it(copy: Path) -> None:
    program = (
        "import os, sys, time\n"
        "import keyhaul.command.laboratory.background as laboratory\n"
        "def background(*arguments):\n"
        "    os.setsid()\n"
        "    os.write(arguments[-1], b'starting\\n')\n"
        "    time.sleep(60)\n"
        "laboratory._background = background\n"
        "from keyhaul.command.main import run\n"
        "sys.exit(run(['network', 'up', sys.argv[1], '--detach']))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(copy)], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "starting\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 128 + signal.SIGINT
        assert "Stopping what was started" in process.stderr.read()


def test_links_of_a_network_that_is_down(copy: Path) -> None:
    for command in (["list"], ["show", "a-m"], ["cut", "a-m"], ["protect", "a-m", "otp"]):
        facts = json.loads((copy / "network.json").read_text())
        for service in facts["services"]:
            service["socket"] = str(copy / "socket")
        (copy / "network.json").write_text(json.dumps(facts))
        done = CliRunner().invoke(link, [*command, "--network", str(copy)])
        assert (done.exit_code, done.stdout) == (69, "")
        assert done.stderr.count("\n") == 1
        assert "ckms-m" in done.stderr or "qkdm-m" in done.stderr


def test_links_of_a_service_that_has_none(laid_out: Path) -> None:
    done = CliRunner().invoke(link, ["list", "--config", str(laid_out / "nodes/m/qkdm/config.toml")])
    assert (done.exit_code, "ckms, akms, ukms" in done.stderr) == (2, True)


def test_a_protection_named_twice(copy: Path) -> None:
    done = CliRunner().invoke(link, ["protect", "a-m", "otp", "otp", "--network", str(copy)])
    assert (done.exit_code, "given twice" in done.stderr) == (2, True)


def test_a_passphrase_without_a_terminal(laid_out: Path, tmp_path: Path) -> None:
    text = (laid_out / "nodes/m/ckms/config.toml").read_text()
    (tmp_path / "config.toml").write_text(
        text.replace('key_file = "store.key"', 'sealer = "passphrase"\npassphrase_file = "old"')
    )
    done = CliRunner().invoke(store, ["passphrase", "--config", str(tmp_path / "config.toml")])
    assert (done.exit_code, "--new-file" in done.stderr) == (2, True)


def test_authorities_are_not_made_without_a_passphrase(tmp_path: Path) -> None:
    done = CliRunner().invoke(pki, ["init", "--authorities", str(tmp_path / "a"), "--domain", "test.example"])
    assert (done.exit_code, "--passphrase-file" in done.stderr) == (2, True)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("host", ["ba na na", "-", "1.2.3", "::x", "a:1"])
def test_a_host_that_is_none(tmp_path: Path, host: str) -> None:
    done = CliRunner().invoke(pki, ["csr", "--site", "kme-1", f"--host={host}", "--out", str(tmp_path / "site")])
    assert (done.exit_code, "--host" in done.stderr) == (2, True)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("host", ["ukms.example", "192.0.2.1", "2001:db8::1"])
def test_a_host_that_is_one(tmp_path: Path, host: str) -> None:
    done = CliRunner().invoke(pki, ["csr", "--site", "kme-1", "--host", host, "--out", str(tmp_path / "site")])
    assert done.exit_code == 0, done.output


def test_the_next_step_names_the_file_of_the_twin(tmp_path: Path) -> None:
    subject = ["--role", "ckms", "--node", "8", "--domain", "test.example"]
    done = CliRunner().invoke(pki, ["csr", *subject, "--classic", "--out", str(tmp_path)])
    assert "--out classic-certificate.pem" in done.stdout


def test_nothing_is_signed_or_revoked_where_the_outcome_cannot_be_written(laid_out: Path, tmp_path: Path) -> None:
    authorities = tmp_path / "authorities"
    shutil.copytree(laid_out / "authorities", authorities)
    subject = ["--role", "ckms", "--node", "8"]
    CliRunner().invoke(pki, ["csr", *subject, "--domain", "test.example", "--out", str(tmp_path / "8")])

    def issued() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in authorities.rglob("*") if path.is_file()}

    before = issued()
    request, certificate = tmp_path / "8/request.pem", laid_out / "nodes/m/ckms/certificate.pem"
    commands: list[list[object]] = [
        ["sign", request, *subject, "--out", tmp_path],
        ["sign", request, *subject, "--out", tmp_path / "none/certificate.pem"],
        ["revoke", certificate, "--install", tmp_path / "8"],
        ["crl", "ckms", "--install", tmp_path / "8"],
    ]
    for command in commands:
        done = CliRunner().invoke(pki, [*map(str, command), "--authorities", str(authorities)])
        assert (done.exit_code, isinstance(done.exception, SystemExit)) == (1, True), done.output
        assert str(tmp_path) in done.stderr
    assert issued() == before
    link_key = tmp_path / "link-key.pem"
    done = CliRunner().invoke(pki, ["link-key", str(link_key), "--public", str(tmp_path / "none/public.pem")])
    assert (done.exit_code, link_key.exists()) == (1, False)


def test_an_empty_sae_id_is_not_asked_for(laid_out: Path) -> None:
    access = ["--network", str(laid_out), "--as", "first-west-1"]
    for command in (
        ["status", ""],
        ["status", "x", "--deadline", "nan"],
        ["get-key", ""],
        ["get-key", "x", "--encoding", "raw"],
    ):
        assert CliRunner().invoke(sae, [*command, *access]).exit_code == 2


def test_a_kme_where_nobody_listens_is_told_in_words(laid_out: Path) -> None:
    done = CliRunner().invoke(sae, ["status", "first-east-1", "--network", str(laid_out), "--as", "first-west-1"])
    assert done.exit_code == 69
    assert "nobody listens there" in done.output


def test_an_error_of_the_system_is_no_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, os.strerror(13), "/some/file")

    monkeypatch.setattr("keyhaul.command.main.keyhaul.main", fail)
    assert run(["network"]) == 1
    assert capsys.readouterr().err == "Error: /some/file: Permission denied\n"


def test_a_narrow_terminal_hides_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "30")
    print_table(("link", "protection", "neighbour"), [("west-a", "aes-256-gcm", "ukms-east")])
    text = capsys.readouterr().out
    assert "…" not in text
    assert all(sum(character in line for line in text.splitlines()) for character in "aes256gcm")


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (2016, "2.0 KiB"), (65_536, "64 KiB"), (5 * 2**30, "5.0 GiB")],
)
def test_sizes_are_short(count: int | None, text: str) -> None:
    assert size(count) == text
