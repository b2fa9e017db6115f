"""Two commands to try reconciling: simulated traffic of which some is lost, and the vendor that knows better."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.running import environment, run_cli, serving

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_what_the_simulated_vendor_has_and_callbacks_did_not_tell_is_corrected_in_one_run(tmp_path: Path) -> None:
    database = tmp_path / "events.db"
    with serving(database) as server:
        simulating = subprocess.Popen(
            [
                *(sys.executable, "-m", "projector", "simulate", "--url", server.url, "--vendor", "127.0.0.1:0"),
                *("--lose", "0.1", "--callbacks", "600", "--groups", "20"),
            ],
            env=environment(database),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert simulating.stdout is not None
        line = next(line for line in simulating.stdout if line.startswith("PROJECTOR_REST_URL="))
        settings = dict(re.findall(r"(PROJECTOR_\w+)=(\S+)", line)) | {"PROJECTOR_REST_SETTLE_S": "1"}
        first = run_cli(database, "reconcile", **settings)
        assert first.returncode == 0, first.stderr
        assert "unknown_group: " in first.stdout
        assert "missing_join: " in first.stdout
        second = run_cli(database, "reconcile", **settings)
        assert (second.returncode, "no differences" in second.stdout) == (0, True), second.stdout
        simulating.send_signal(signal.SIGINT)
        assert simulating.wait(30) == 0
        simulating.stdout.close()


def test_callbacks_are_lost_only_where_a_vendor_can_tell(tmp_path: Path) -> None:
    done = run_cli(tmp_path / "events.db", "simulate", "--lose", "0.1")
    assert (done.returncode, "--lose is for --vendor" in done.stderr) == (2, True)
