"""Throw bytes at the translation, at redaction and at the receiver until something breaks: `python -m scripts.fuzz`.

A coverage-guided fuzzer mutates what it has found so far, beginning with the payloads of the documentation and with
`tests/fuzzing/corpus`. What breaks is written beside the work, as `crash-…`; with --keep, what reached new code is
added to the corpus, smallest first.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.callbacks.payloads import COMMANDS, PAYLOADS
from tests.fuzzing.redaction import ns_per_byte

CORPUS = Path("tests/fuzzing/corpus")
MILLION = 1_000_000
MILLIONS = {"translation": 3.75, "redaction": 2.0, "requests": 0.75, "connections": 0.5}
MAX_BYTES = {"translation": 4_096, "redaction": 1_024, "requests": 4_096, "connections": 4_096}
"""Redaction takes time in proportion to the bytes, which `ns_per_byte` checks on longer ones."""

REQUEST = b"POST /callback?SdkAppid=1400000000&CallbackCommand=%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"


def seeds(target: str) -> list[bytes]:
    """What to begin with."""
    inputs = []
    for payload in PAYLOADS:
        command = payload.query.get("CallbackCommand", "")
        chosen = bytes([COMMANDS.index(command)])
        if target in ("translation", "redaction"):
            inputs.append(chosen + payload.body)
        elif target == "requests":
            inputs.append(chosen + b"OptPlatform=Web\n" + payload.body)
        else:
            inputs.append(REQUEST % (command.encode(), len(payload.body), payload.body))
    return inputs


def dictionary() -> list[str]:
    """Words that chance alone would not come upon."""
    words = {word for payload in PAYLOADS for word in re.findall(rb'"[A-Za-z_]{2,40}"', payload.body)}
    words |= {name.encode() for payload in PAYLOADS for name in payload.query}
    words |= {b"\\ud800", b"\\u0000", b"1e999", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n"}
    return ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in sorted(words)]


def fuzzer(target: str, folder: Path) -> Path:
    """Return a program that fuzzes one target; the fuzzer restarts itself by the program's name."""
    program = folder / f"{target}.sh"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scripts.fuzz.one {target} "$0" "$@"\n')
    program.chmod(0o755)
    return program


def campaign(target: str, runs: int, folder: Path, seed: int) -> int:
    """Run the fuzzer in a process of its own; return how many inputs it tried, or exit with the failure."""
    begun, words = folder / target, folder / f"{target}.words"
    begun.mkdir(exist_ok=True)
    for content in seeds(target):
        (begun / hashlib.blake2b(content, digest_size=8).hexdigest()).write_bytes(content)
    words.write_text("\n".join(dictionary()))
    kept = CORPUS / target
    kept.mkdir(parents=True, exist_ok=True)
    limits = [f"-runs={runs}", f"-seed={seed}", f"-max_len={MAX_BYTES[target]}", "-timeout=30", "-rss_limit_mb=4096"]
    where = [f"-dict={words}", f"-artifact_prefix={folder}/crash-{target}-", str(begun), str(kept)]
    command = [fuzzer(target, folder), *limits, "-print_final_stats=1", *where]
    begun_at = time.monotonic()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    if done.returncode or not tried:
        print(done.stderr[-4000:])
        sys.exit(f"{target}: something broke; the input is in {folder}")
    seconds = time.monotonic() - begun_at
    print(f"{target:12} {int(tried[1]):>10,} inputs in {seconds:,.0f} s: nothing broke", flush=True)
    if target == "redaction":
        slowest = max(ns_per_byte(file.read_bytes()[1:]) for folder in (begun, kept) for file in folder.iterdir())
        print(f"{target:12} at most {slowest:,} ns for a byte", flush=True)
    return int(tried[1])


def keep(target: str, folder: Path, most: int) -> None:
    """Add the inputs that reach new code to the corpus."""
    merged = folder / f"{target}.merged"
    merged.mkdir(exist_ok=True)
    subprocess.run(
        [fuzzer(target, folder), "-merge=1", str(merged), str(folder / target)],
        stderr=subprocess.DEVNULL,
        check=False,
    )
    smallest = sorted(merged.iterdir(), key=lambda file: (file.stat().st_size, file.name))[:most]
    for file in smallest:
        (CORPUS / target / file.name[:16]).write_bytes(file.read_bytes())
    print(f"{target:12} {len(smallest)} inputs kept")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=[*MILLIONS], help=f"default: {' '.join(MILLIONS)}")
    parser.add_argument("--millions", type=float, help=f"inputs of the targets together (default: {MILLIONS})")
    parser.add_argument("--seed", type=int, default=20241209)
    parser.add_argument("--keep", type=int, default=0, metavar="N", help="add up to N inputs a target to the corpus")
    parser.add_argument("--folder", type=Path, help="where the work is kept, to be gone on with")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(exist_ok=True)
    tried, default = 0, sum(MILLIONS[target] for target in options.targets)
    for target in options.targets:
        inputs = MILLIONS[target] * (options.millions or default) / default
        tried += campaign(target, int(inputs * MILLION), folder, options.seed)
        if options.keep:
            keep(target, folder, options.keep)
    print(f"{tried:,} inputs with seed {options.seed}: no exception, no 5xx, no authentic body lost, no account left")


if __name__ == "__main__":
    main()
