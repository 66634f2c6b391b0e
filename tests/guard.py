"""What a process and those that it starts do beyond their folders and this machine, seen by strace."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

DNS = 53  # a look-up, also where a server of the loopback passes it on
CALLS = "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,symlinkat"
_OPENED = re.compile(r"(?:open|openat|creat)\((.*)\) += \d+<([^>]*)>")
_NAMED = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"')
_FILELESS = ("/dev/", "/proc/", "/memfd:", "pipe:", "socket:", "anon_inode:")


def strace() -> str:
    """The program; skips the test where it is not installed, or a process may not trace another one."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    if subprocess.run(
        [program, "-f", "--seccomp-bpf", "-o", os.devnull, "true"], capture_output=True, check=False
    ).returncode:
        pytest.skip("strace cannot trace a process here")
    return program


def traced(command: Sequence[object], traces: Path) -> list[str]:
    """The command, under strace; `traces` is a folder for what it writes, a file per thread."""
    traces.mkdir(parents=True)
    options = [
        "-f",
        "-ff",
        "-qq",
        "-y",
        "--seccomp-bpf",
        "-e",
        "signal=none",
        "-e",
        f"trace={CALLS}",
        "-o",
        str(traces / "thread"),
    ]
    return [strace(), *options, *map(str, command)]


def look_ups_and_connections(traces: Path) -> list[str]:
    """Calls that ask a name server, or that reach for an address beyond the loopback."""
    return [
        line
        for line in _lines(traces)
        for port, host in _ADDRESS.findall(line)
        if int(port) == DNS or not _is_loopback(host)
    ]


def written(traces: Path, cwd: Path) -> list[Path]:
    """Files that were opened for writing, folders that were made, and new names. cwd: where the process began."""
    paths: dict[Path, None] = {}
    for line in _lines(traces):
        if opened := _OPENED.match(line):
            found = (
                [opened[2]]
                if re.search(r"O_WRONLY|O_RDWR|O_CREAT", opened[1]) or line.startswith("creat")
                else []
            )
        elif re.match(r"(mkdir|rename|link|symlink)\w*\(.* = 0$", line):
            folder, name = _NAMED.findall(line)[-1]  # the new one
            found = [os.path.join(folder or cwd, name)]  # noqa: PTH118
        else:
            continue
        paths |= dict.fromkeys(Path(path) for path in found if not path.startswith(_FILELESS))
    return list(paths)


def _lines(traces: Path) -> Iterator[str]:
    for file in traces.iterdir():
        yield from file.read_text(errors="replace").splitlines()


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    return address.is_loopback or bool(
        getattr(address, "ipv4_mapped", None) and address.ipv4_mapped.is_loopback
    )  # type: ignore[union-attr]
