"""Files that a process and its children write and addresses that they contact, as strace reports them."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

DNS = 53  # a request to this port looks up a name, even if the name server is on the loopback interface
CALLS = (
    "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,"
    "rename,renameat,renameat2,link,linkat,symlink,symlinkat"
)
_OPENED = re.compile(r"(?:open|openat|creat)\((.*)\) += \d+<([^>]*)>")
_NAMED = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
_ADDRESS = re.compile(r'sin6?_port=htons\((\d+)\).*?inet_(?:addr\(|pton\(AF_INET6, )"([^"]+)"')
_FILELESS = ("/dev/", "/proc/", "/memfd:", "pipe:", "socket:", "anon_inode:")


def strace() -> str:
    """Return the path of strace.

    Skips the test where strace is not installed, or where a process may not trace another.
    """
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    trial = [program, "-f", "--seccomp-bpf", "-o", os.devnull, "true"]
    if subprocess.run(trial, capture_output=True, check=False).returncode:
        pytest.skip("strace cannot trace a process here")
    return program


def traced(command: Sequence[object], traces: Path) -> list[str]:
    """Return the command line that runs a command under strace.

    traces: a folder, which is created. strace writes one file per thread into it.
    """
    traces.mkdir(parents=True)
    options = ["-f", "-ff", "-qq", "-y", "--seccomp-bpf", "-e", "signal=none"]
    options += ["-e", f"trace={CALLS}", "-o", str(traces / "thread")]
    return [strace(), *options, *map(str, command)]


def look_ups_and_connections(traces: Path) -> list[str]:
    """Return the calls that ask a name server or contact an address outside the loopback network."""
    return [
        line
        for line in _lines(traces)
        for port, host in _ADDRESS.findall(line)
        if int(port) == DNS or not _is_loopback(host)
    ]


def written(traces: Path, cwd: Path) -> list[Path]:
    """Return the files opened for writing, the folders created, and the new names of renamed or linked files.

    cwd: the folder in which the process was started.
    """
    paths: dict[Path, None] = {}
    for line in _lines(traces):
        if opened := _OPENED.match(line):
            writes = re.search(r"O_WRONLY|O_RDWR|O_CREAT", opened[1]) or line.startswith("creat")
            names = [opened[2]] if writes else []
        elif re.match(r"(mkdir|rename|link|symlink)\w*\(.* = 0$", line):
            folder, name = _NAMED.findall(line)[-1]  # the last path of the call is the new one
            names = [os.path.join(folder or cwd, name)]  # noqa: PTH118
        else:
            continue
        paths |= dict.fromkeys(Path(name) for name in names if not name.startswith(_FILELESS))
    return list(paths)


def _lines(traces: Path) -> Iterator[str]:
    for file in traces.iterdir():
        yield from file.read_text(errors="replace").splitlines()


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.is_loopback or address.ipv4_mapped.is_loopback
    return address.is_loopback
