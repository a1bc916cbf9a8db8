"""Executes the steps of a Dockerfile one by one in a Debian root, for machines that have no container engine.

    sudo python3 docker/rehearse.py build docker/cpu.Dockerfile ROOT [--arg NAME=VALUE]
    sudo python3 docker/rehearse.py run docker/cpu.Dockerfile ROOT [--bind HOST:INSIDE] [--writable] -- WORDS

ROOT is a clean root made by debootstrap. `build` runs RUN and COPY by chroot and changes ROOT; `run` starts the
entry point as the image's user with ROOT mounted read-only, /cache and the --bind folders apart. What an engine does
besides (layers, the network's isolation, capabilities) is not rehearsed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

CONTEXT = Path(__file__).resolve().parent.parent
CERTIFICATES = ("PIP_CERT", "SSL_CERT_FILE")


def instructions(path: Path) -> list[tuple[str, str]]:
    """(name, arguments) in order, continued lines joined, comments left out."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    return [
        (name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in whole.split("\n")) if name
    ]


def settings(steps: list[tuple[str, str]]) -> tuple[dict[str, str], str, str, list[str]]:
    """What holds at the end: environment, working folder, user, entry point."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    folder, user, entry = "/", "root", []
    for name, rest in steps:
        if name == "ENV":
            key, _, value = rest.partition("=")
            environment[key] = value
        elif name == "WORKDIR":
            folder = rest
        elif name == "USER":
            user = rest
        elif name == "ENTRYPOINT":
            entry = json.loads(rest)
    return environment, folder, user, entry


def build(dockerfile: Path, root: Path, arguments: dict[str, str]) -> None:
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    environment |= network(root)
    for name, rest in instructions(dockerfile):
        print(f"--> {name} {rest[:100]}", flush=True)
        if name == "ARG":
            key, _, default = rest.partition("=")
            environment[key] = arguments.get(key, default.strip('"'))
        elif name == "ENV":
            key, _, value = rest.partition("=")
            environment[key] = value
        elif name == "COPY":
            copy(root, *shlex.split(rest))
        elif name == "RUN":
            subprocess.run(["chroot", root, "/bin/sh", "-c", rest], env=environment, check=True)
        elif name not in ("FROM", "VOLUME", "WORKDIR", "USER", "ENTRYPOINT", "CMD"):
            sys.exit(f"no rehearsal for {name}")


def network(root: Path) -> dict[str, str]:
    """This machine's way to the network, which an engine passes on by itself: name servers, certificates, proxies."""
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    passed_on = {name: os.environ[name] for name in ("http_proxy", "https_proxy", "no_proxy") if name in os.environ}
    for name in CERTIFICATES:
        if name in os.environ:
            shutil.copy(os.environ[name], root / "run" / name)
            passed_on[name] = f"/run/{name}"
    return passed_on


def copy(root: Path, *names: str) -> None:
    """COPY from the context; what .dockerignore leaves out is here only __pycache__."""
    *sources, target = names
    place = root / target.lstrip("/")
    for source in sources:
        given = CONTEXT / source
        if given.is_dir():
            shutil.copytree(given, place, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            into = place / given.name if target.endswith("/") else place
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(given, into)


def run(dockerfile: Path, root: Path, binds: list[str], words: list[str], *, writable: bool) -> int:
    """The exit code of the entry point with `words`, in mounts of its own that end with it."""
    environment, folder, user, entry = settings(instructions(dockerfile))
    mounts = [f"mount --bind {shlex.quote(str(root))} {shlex.quote(str(root))}"]
    if not writable:
        mounts.append(f"mount -o remount,bind,ro {shlex.quote(str(root))}")
    for bind in binds:
        host, _, inside = bind.rpartition(":")
        mounts.append(f"mount --bind {shlex.quote(host)} {shlex.quote(str(root) + inside)}")
    mounts.append(f"mount -t proc proc {shlex.quote(str(root))}/proc")
    mounts.append(f"mount --rbind /dev {shlex.quote(str(root))}/dev")
    inside = f"cd {shlex.quote(folder)} && exec {shlex.join([*entry, *words])}"
    started = [
        "/usr/bin/env",
        "-i",
        *(f"{name}={value}" for name, value in environment.items()),
        "/bin/sh",
        "-c",
        inside,
    ]
    mounts.append(f"exec chroot --userspec={user} {shlex.join([str(root), *started])}")
    return subprocess.run(["unshare", "--mount", "--net", "/bin/sh", "-ec", "\n".join(mounts)], check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["build", "run"])
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--bind", action="append", default=[], metavar="HOST:INSIDE")
    parser.add_argument("--writable", action="store_true", help="do not mount the root read-only")
    options = sys.argv[1:]
    end = options.index("--") if "--" in options else len(options)
    given = parser.parse_args(options[:end])
    root = given.root.resolve()
    if given.action == "build":
        build(given.dockerfile, root, dict(pair.split("=", 1) for pair in given.arg))
        return 0
    return run(given.dockerfile, root, given.bind, options[end + 1 :], writable=given.writable)


if __name__ == "__main__":
    sys.exit(main())
