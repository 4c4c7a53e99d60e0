"""The files to run the service by: what they name is there, and the commands in them are ours.

What a tool can check, it checks where there is one: systemd-analyze, nginx.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
import yaml

from sharedlog import GraphQLSharedLog, HttpTransport
from sharedlog_service.access.watch import USER_SOCKETS_MAX
from sharedlog_service.cli import add_commands
from sharedlog_service.commands.choosing import choose
from sharedlog_service.commands.serving import SHUTDOWN_S
from sharedlog_service.settings import Limits, Patience, is_loopback
from sharedlog_service.web.sockets import SOCKETS_MAX
from tests.meta.source import ROOT
from tests.system.service_process import ServiceProcess, service as service

DEPLOY = ROOT / "deploy"
CONTAINER = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "sharedlog.service").read_text(encoding="utf-8")
NGINX = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")

EXPOSURE_MAX = 15
"""What systemd makes of the unit, from 0 (safe) to 100; 13 when this was written."""

WAIT_S = 15


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """What our own parser makes of a command; one that it does not know fails the test."""
    parser = argparse.ArgumentParser(prog="sharedlog")
    add_commands(parser.add_subparsers(required=True))
    return parser.parse_args(words)


def check_for_strangers(words: Sequence[str]) -> None:
    """`serve` with these words is fit for people whom nobody knows: behind a proxy, too, where it
    listens on a loopback address and takes nobody for a stranger by itself."""
    args = parsed(words)
    choose(args, {})
    assert args.explore is False
    if is_loopback(args.host):
        assert args.requests_per_minute
        assert args.entries_per_minute
        assert args.bytes_per_minute


def head_of(text: str) -> str:
    """The instructions in the comment that a file begins with."""
    lines = text.splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(line.lstrip("# ") for line in lines[:end])


# -- the container -----------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", CONTAINER)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def last(name: str) -> str:
    return [rest for word, rest in instructions() if word == name][-1]


def test_the_container_runs_our_command_as_nobody_special() -> None:
    command = [*json.loads(last("ENTRYPOINT")), *json.loads(last("CMD"))]
    assert command[0] == "sharedlog"
    check_for_strangers(command[1:])
    assert int(last("USER")) > 0
    words = [word for word, _ in instructions()]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert last("EXPOSE") in command


def test_the_container_has_all_that_a_build_needs(tmp_path: Path) -> None:
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            for source in sources:
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, tmp_path / target)
                else:
                    shutil.copy(ROOT / source, tmp_path)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert len(list(tmp_path.glob("out/*.whl"))) == 1


def test_the_container_tells_whether_it_is_healthy(service: ServiceProcess) -> None:
    _, _, command = last("HEALTHCHECK").partition("CMD ")
    python, *words = json.loads(command)
    assert python == "python"
    here = f"127.0.0.1:{urlsplit(service.url).port}"
    check = [sys.executable, *[word.replace("127.0.0.1:8000", here) for word in words]]
    assert subprocess.run(check, timeout=WAIT_S).returncode == 0
    service.stop()
    assert subprocess.run(check, timeout=WAIT_S, stderr=subprocess.DEVNULL).returncode != 0


# -- compose -----------------------------------------------------------------------------


def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_compose_runs_our_commands() -> None:
    services = compose()["services"]
    ours = {name: found for name, found in services.items() if "build" in found}
    assert ours.keys() == {"migrate", "service"}
    for found in ours.values():
        args = parsed(found["command"])
        assert callable(args.handler)
        build = found["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
        if found["command"][0] == "serve":
            check_for_strangers(found["command"])
        address = found["command"][found["command"].index("--database") + 1]
        assert urlsplit(address).hostname in services
    for line in re.findall(r"docker compose run --rm service (.*)", head_of_compose()):
        parsed(shlex.split(line))


def head_of_compose() -> str:
    return head_of((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))


def test_compose_fits_together() -> None:
    found = compose()
    for name, each in found["services"].items():
        assert each.get("depends_on", {}).keys() <= found["services"].keys() - {name}
        for volume in each.get("volumes", []):
            assert volume.partition(":")[0] in found["volumes"]
        for value in each.get("environment", {}).values():
            assert value == "sharedlog" or value.startswith("${"), "a secret in the file"
    (port,) = found["services"]["service"]["ports"]
    assert port.startswith("127.0.0.1:")


# -- systemd -----------------------------------------------------------------------------


def directive(name: str) -> str:
    (found,) = re.findall(rf"^{name}=(.*)$", UNIT.replace("\\\n", ""), re.MULTILINE)
    return str(found)


def test_the_unit_runs_our_command_and_waits_for_its_end() -> None:
    path, *words = shlex.split(directive("ExecStart"))
    assert Path(path).name == "sharedlog"
    check_for_strangers(words)
    assert int(directive("TimeoutStopSec")) > SHUTDOWN_S
    for line in re.findall(r"bin/sharedlog (token .*)", head_of(UNIT)):
        parsed(shlex.split(line))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_systemd_takes_the_unit_and_finds_it_safe(tmp_path: Path) -> None:
    unit = tmp_path / "sharedlog.service"
    program = shutil.which("sharedlog", path=Path(sys.executable).parent)
    assert program is not None
    unit.write_text(UNIT.replace("/opt/sharedlog/bin/sharedlog", program))
    analyze = ["systemd-analyze", "--no-pager"]
    done = subprocess.run([*analyze, "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    threshold = f"--threshold={EXPOSURE_MAX}"
    safe = [*analyze, "security", "--offline=yes", threshold, str(unit)]
    done = subprocess.run(safe, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# -- the proxy ---------------------------------------------------------------------------


def test_the_proxy_keeps_to_the_bounds_of_the_service() -> None:
    def value(name: str) -> str:
        (found,) = re.findall(rf"^ +{name} (.*);", NGINX, re.MULTILINE)
        return str(found)

    assert value("client_max_body_size") == f"{Limits().request_bytes // 2**20}m"
    for name in ("client_header_timeout", "client_body_timeout", "send_timeout"):
        assert value(name) == f"{Patience().head_s}s", name
    counted = dict(re.findall(r"^ +limit_conn (\w+) (\d+);", NGINX, re.MULTILINE))
    assert USER_SOCKETS_MAX < int(counted["sharedlog_sockets"]) < SOCKETS_MAX
    (line,) = re.findall(r"sharedlog (serve .*)", head_of(NGINX).replace("\\\n", ""))
    check_for_strangers(shlex.split(line))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    both = ["-keyout", str(path), "-out", str(path) + ".c"]
    subprocess.run([*command, *both], check=True, capture_output=True)
    path.write_text(path.read_text() + Path(str(path) + ".c").read_text())
    return path


@contextmanager
def proxy(
    folder: Path, certificate: Path, service: ServiceProcess, site: str = NGINX
) -> Iterator[int]:
    """The proxy in front of a service; yields its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    site = re.sub(r"listen \[::\].*", "", site)
    site = re.sub(r"(ssl_certificate(_key)?) .*;", rf"\1 {certificate};", site)
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{urlsplit(service.url).port}")
    (folder / "site.conf").write_text(site)
    paths = [f"{kind}_temp_path {folder}/{kind};" for kind in KINDS]
    inner = " ".join([*paths, "access_log off;", f"include {folder}/site.conf;"])
    main = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
    (folder / "nginx.conf").write_text(f"{main} http {{ {inner} }}\n")
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with subprocess.Popen(command) as running:
        try:
            wait_for(port)
            yield port
        finally:
            running.terminate()


KINDS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def wait_for(port: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.01)
    raise AssertionError("nobody listens")


@pytest.mark.skipif(not shutil.which("nginx"), reason="no nginx")
def test_clients_reach_the_service_through_the_proxy(
    service: ServiceProcess,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.c")
    with proxy(tmp_path, certificate, service) as port:
        log = GraphQLSharedLog(HttpTransport(f"https://localhost:{port}/graphql", service.token))
        log.register(None, "till-1")
        log.close()
        trusting = ssl.create_default_context(cafile=f"{certificate}.c")
        with pytest.raises(HTTPError) as refused:
            urlopen(f"https://localhost:{port}/healthz", context=trusting)
        assert refused.value.code == 404
        refused.value.close()
        with upgraded(port, trusting) as found:
            assert found.startswith(b"HTTP/1.1 101")


@contextmanager
def upgraded(port: int, trusting: ssl.SSLContext) -> Iterator[bytes]:
    """A socket through the proxy; yields what was answered."""
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as talk,
    ):
        talk.settimeout(WAIT_S)
        talk.sendall(b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n")
        talk.sendall(b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n")
        talk.sendall(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
        talk.sendall(b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n")
        yield talk.recv(1000)


@pytest.mark.skipif(not shutil.which("nginx"), reason="no nginx")
def test_an_office_of_live_devices_is_let_through_the_proxy(
    service: ServiceProcess,
    certificate: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They have one address between them, and a socket each; too many of either are turned away."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.c")
    trusting = ssl.create_default_context(cafile=f"{certificate}.c")
    fewer = NGINX.replace("limit_conn sharedlog_sockets 500", "limit_conn sharedlog_sockets 60")
    with proxy(tmp_path, certificate, service, fewer) as port, ExitStack() as office:
        for _ in range(60):
            assert office.enter_context(upgraded(port, trusting)).startswith(b"HTTP/1.1 101")
        assert office.enter_context(upgraded(port, trusting)).startswith(b"HTTP/1.1 503")
        log = GraphQLSharedLog(HttpTransport(f"https://localhost:{port}/graphql", service.token))
        log.register(None, "till-1")
        log.close()
