"""Machines that can vanish from the network: namespaces, each with an interface joined to ours."""

from __future__ import annotations

import itertools
import os
import subprocess
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_RANGE = int(ip_address("198.18.0.0"))
"""A range of addresses set aside for tests of networks; each machine takes four."""

_MAX_MACHINES = 2**15
_numbers = itertools.count(os.getpid() * 8)


class Machine:
    """A network namespace. Programs in it have `address`, and reach ours at `gateway`."""

    def __init__(self) -> None:
        number = next(_numbers) % _MAX_MACHINES
        self.gateway, self.address = (str(ip_address(_RANGE + number * 4 + host)) for host in (1, 2))
        self.name = f"projector-{number}"
        self._interface = f"projector{number}"

    @property
    def inside(self) -> tuple[str, ...]:
        """What goes before a command that runs in this machine."""
        return ("ip", "netns", "exec", self.name)

    def attach(self) -> None:
        _run("ip", "netns", "add", self.name)
        _run("ip", "link", "add", self._interface, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _run("ip", "address", "add", f"{self.gateway}/30", "dev", self._interface)
        _run("ip", "link", "set", self._interface, "up")
        _run(*self.inside, "ip", "address", "add", f"{self.address}/30", "dev", "eth0")
        for interface in ("lo", "eth0"):
            _run(*self.inside, "ip", "link", "set", interface, "up")

    @contextmanager
    def vanished(self) -> Iterator[None]:
        """Drop every packet to and from the machine, and tell nobody."""
        chains = (("INPUT", "-i"), ("OUTPUT", "-o"))
        for chain, direction in chains:
            _run(*self.inside, "iptables", "--wait", "-I", chain, direction, "eth0", "-j", "DROP")
        try:
            yield
        finally:
            for chain, _ in chains:
                _run(*self.inside, "iptables", "--wait", "-F", chain)

    def remove(self) -> None:
        _run("ip", "netns", "delete", self.name)
        # The pair of interfaces goes when the last process in the namespace has ended.


@contextmanager
def attached() -> Iterator[Machine]:
    """A machine, for the time of a test."""
    machine = Machine()
    machine.attach()
    try:
        yield machine
    finally:
        machine.remove()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
