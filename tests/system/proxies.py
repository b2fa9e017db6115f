"""Real proxies, from Debian's packages, with the settings of docs/operations.md."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.postgresql import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
_DEADLINE_S = 30


class Proxy(NamedTuple):
    """How a proxy is documented and run: `around` goes around the settings, `command` before the name of their file."""

    language: str
    command: tuple[str, ...]
    around: str = "{settings}"


_NGINX = """
daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/log;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    {settings}
}}
"""
PROXIES = {
    "nginx": Proxy("nginx", ("nginx", "-c"), _NGINX),
    "caddy": Proxy(
        "caddyfile", ("caddy", "run", "--adapter", "caddyfile", "--config"), "{{\nadmin off\n}}\n{settings}"
    ),
    "haproxy": Proxy("haproxy", ("haproxy", "-db", "-f")),
}


@contextmanager
def proxying(name: str, server_url: str) -> Iterator[str]:
    """Run a proxy in front of a server; yield its address."""
    proxy, port = PROXIES[name], free_port()
    (documented,) = re.findall(rf"```{proxy.language}\n(.*?)```", _OPERATIONS, re.DOTALL)
    settings = documented.replace("127.0.0.1:8000", server_url.removeprefix("http://"))
    settings = re.sub(r"listen 80|:80\b", lambda match: match[0].replace("80", str(port)), settings)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    file = folder / "settings"
    file.write_text(proxy.around.format(settings=settings, folder=folder))
    binary = shutil.which(proxy.command[0], path=f"{os.environ['PATH']}:/usr/sbin")
    assert binary, f"{name} is not installed; run `make test-system`"
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [binary, *proxy.command[1:], str(file)],
            stdout=output,
            stderr=output,
            env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder)},
        )
    try:
        _wait_for(port, process, folder)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=_DEADLINE_S)
        shutil.rmtree(folder)


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, (folder / "output").read_text()
            assert time.monotonic() < deadline, (folder / "output").read_text()
            time.sleep(0.02)
        else:
            return
