"""What users may send to a UKMS, and what they get for it: never a traceback, never another status than documented."""

from __future__ import annotations

import json
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.laboratory import ROOT, Network, Sae

pytestmark = [pytest.mark.network, pytest.mark.xdist_group("network")]

schema = schemathesis.openapi.from_path(ROOT / "proto" / "etsi-014.openapi.json")


@schema.parametrize()
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_answers_are_those_of_the_openapi_document(case: schemathesis.Case[Any], network: Network) -> None:
    sae = network.pairs()[0][0]
    answer = case.call(
        base_url=f"{sae.ukms}/api/v1/keys", cert=(str(sae.certificate), str(sae.key)), verify=str(sae.ca), timeout=30
    )
    checks = [status_code_conformance, content_type_conformance, response_schema_conformance]
    if answer.status_code != 503:
        checks.append(not_a_server_error)
    case.validate_response(answer, checks=checks)
    if answer.status_code != 200:
        assert "message" in answer.json()


def connect(sae: Sae, *, certificate: bool = True) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=sae.ca)
    if certificate:
        context.load_cert_chain(sae.certificate, sae.key)
    host, port = sae.ukms.removeprefix("https://").rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), timeout=10)
    return context.wrap_socket(plain, server_hostname=host)


def exchange(sae: Sae, request: bytes) -> bytes:
    with connect(sae) as channel:
        channel.sendall(request)
        answer = b""
        while chunk := channel.recv(65_536):
            answer += chunk
    return answer


def answer_without_being_known(sae: Sae, *, certificate: bool) -> bytes:
    try:
        with connect(sae, certificate=certificate) as channel:
            channel.sendall(b"GET /api/v1/keys/x/status HTTP/1.1\r\nHost: x\r\n\r\n")
            return channel.recv(10)
    except (ssl.SSLError, ConnectionError):
        return b""


def test_without_a_certificate_there_is_no_answer(network: Network) -> None:
    assert answer_without_being_known(network.pairs()[0][0], certificate=False) == b""


def test_another_authority_is_not_believed(network: Network, tmp_path: Path) -> None:
    sae = network.pairs()[0][0]
    forged = Sae(sae.id, sae.node, sae.ukms, *_self_signed(tmp_path, sae.id), sae.ca, sae.peers, sae.loopback)
    assert answer_without_being_known(forged, certificate=True) == b""


@pytest.mark.parametrize("connection", [b"close", b"keep-alive"])
def test_any_host_and_both_kinds_of_connection(network: Network, connection: bytes) -> None:
    master, slave = network.pairs()[0]
    path = f"/api/v1/keys/{slave.id}/status".encode()
    request = b"GET " + path + b" HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: %b\r\n\r\n"
    with connect(master) as channel:
        for _ in range(1 if connection == b"close" else 2):
            channel.sendall(request % connection)
            assert channel.recv(65_536).startswith(b"HTTP/1.1 200")
        if connection == b"close":
            assert channel.recv(1) == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/v1/keys/x/enc_keys HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\nConnection: close\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Many: y\r\n" * 20_000 + b"\r\n",
    ],
    ids=["noise", "version", "length", "long-line", "many-headers"],
)
def test_malformed_http_is_refused_and_the_service_goes_on(network: Network, request_bytes: bytes) -> None:
    sae = network.pairs()[0][0]
    try:
        answer = exchange(sae, request_bytes)
    except (ConnectionError, ssl.SSLError):
        answer = b""
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert b"Traceback" not in answer
    path = f"/api/v1/keys/{network.pairs()[0][1].id}/status".encode()
    after = exchange(sae, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert after.startswith(b"HTTP/1.1 200")


def test_a_huge_body_is_refused(network: Network) -> None:
    master, slave = network.pairs()[0]
    head = (
        f"POST /api/v1/keys/{slave.id}/enc_keys HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        "Content-Type: application/json\r\nContent-Length: 268435456\r\n\r\n"
    ).encode()
    with connect(master) as channel:
        channel.sendall(head + b"[" * 65_536)
        answer = channel.recv(65_536)
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_logs_hold_no_key(network: Network) -> None:
    master, slave = network.pairs()[0]
    path = f"/api/v1/keys/{slave.id}/enc_keys?number=3".encode()
    answer = exchange(master, b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    keys = [key["key"] for key in json.loads(answer.split(b"\r\n\r\n", 1)[1])["keys"]]
    assert len(keys) == 3
    for log in (network.directory / "logs").iterdir():
        text = log.read_text(errors="replace")
        assert not [key for key in keys if key in text or key.rstrip("=") in text]


def _self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "forged.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    descriptor = os.open(folder / "forged.key", os.O_CREAT | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    return folder / "forged.pem", folder / "forged.key"
