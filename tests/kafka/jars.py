"""Kafka itself: the jars, fetched once by Maven into a cache of the user's, and a Java that runs them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")

JAVA_VERSION = 17
"""Kafka 4 runs on no older one."""

FETCH_S = 600
"""45 MB, on a slow line."""

HOW_TO_INSTALL = "on Debian and Ubuntu: apt install default-jre-headless maven"


class NoBroker(Exception):
    """This machine can run no broker; says what it lacks."""


@cache
def java() -> str:
    """The path of a Java that Kafka runs on.

    Raises:
        NoBroker: there is none.
    """
    home = os.environ.get("JAVA_HOME")
    candidates = [f"{home}/bin/java"] if home else []
    candidates += [found for found in [shutil.which("java")] if found]
    seen = []
    for candidate in candidates:
        version = _version(candidate)
        if version >= JAVA_VERSION:
            return candidate
        seen.append(f"{candidate} is {version or 'no working Java'}")
    raise NoBroker(
        f"Kafka needs Java {JAVA_VERSION} or newer; found: {', '.join(seen) or 'none'}; {HOW_TO_INSTALL}"
    )


def _version(path: str) -> int:
    """The major version of a Java; 0 if it does not run."""
    try:
        said = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return 0
    found = re.search(r'version "(\d+)', said.stderr)
    return int(found[1]) if found and said.returncode == 0 else 0


def classpath() -> str:
    """Kafka's classpath; the first call on a machine fetches the jars.

    Raises:
        NoBroker: they are not here and cannot be fetched.
    """
    return f"{home()}/*"


def home() -> Path:
    """The folder of the jars; raises as :func:`classpath` does."""
    wanted = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(cache_home) / "kafka-orchestrator" / f"kafka-{wanted}"
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "fetching").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes start at once
        if not folder.exists():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise NoBroker(f"Kafka's jars are fetched by Maven (mvn), which is not here; {HOW_TO_INSTALL}")
    draft = folder.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={draft}"]
    done = subprocess.run(
        [maven, "-B", "-q", "-f", str(POM), *goal],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=FETCH_S,
        check=False,
    )
    if done.returncode != 0:
        raise NoBroker(f"Maven could not fetch Kafka's jars:\n{done.stdout[-2_000:]}")
    draft.rename(folder)  # all of them, or none
