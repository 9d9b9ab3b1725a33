"""Run a command in Linux namespaces of its own: `python sandbox.py SPEC COMMAND...` (standard library only).

The command sees a root that holds what SPEC shows (read-only), its work folder, and nothing else; its own processes;
with `network` no network but its own loopback. When it ends, or whoever started it does, the kernel ends all that it
left behind: no daemon outlives a process namespace. Works as root (as the user `nobody`, without user namespaces) and
as anybody whom the kernel lets make user namespaces. SPEC is JSON: work, show, tmp_mb (0: the work folder as it is),
network, env, and limits by name of `resource` ({"RLIMIT_NPROC": 256}).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

NEWNS, NEWIPC, NEWUSER, NEWPID, NEWNET = 0x20000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
BIND, REC, PRIVATE, NOSUID, NODEV = 0x1000, 0x4000, 1 << 18, 2, 4
AT_FDCWD, AT_RECURSIVE, MOUNT_SETATTR, ATTR_RDONLY, ATTR_NOSUID = -100, 0x8000, 442, 1, 2
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, MNT_DETACH = 1, 38, 2
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
NOBODY = 65534
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/etc")
DEVICES = ("null", "zero", "full", "random", "urandom")

libc = ctypes.CDLL(None, use_errno=True)


def main(argv: list[str]) -> int:
    """Enter the namespaces, run the command as their first process, return its exit status."""
    spec: dict[str, Any] = json.loads(argv[0])
    as_root, here = os.geteuid() == 0, Path.cwd()
    _enter_namespaces(as_root, network=spec["network"])
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code
    _build_root(spec)
    os.chdir(here if here.is_dir() else "/")
    if as_root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for name, value in spec["limits"].items():
        hard = resource.getrlimit(getattr(resource, name))[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(getattr(resource, name), (value, value))
    os.environ.update(spec["env"])
    return os.execvp(argv[1], argv[1:])  # never returns; who is not root loses every capability here


def call(name: str, *arguments: Any) -> int:
    """Call the C library; raises OSError with the system's reason."""
    converted = [a if not isinstance(a, (str, Path)) else os.fsencode(a) for a in arguments]
    result = int(getattr(libc, name)(*converted))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def mount(source: str | Path, target: str | Path, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount, as mount(2)."""
    call("mount", source, target, kind or None, ctypes.c_ulong(flags), data or None)


def _enter_namespaces(as_root: bool, *, network: bool) -> None:
    user, group = os.geteuid(), os.getegid()
    call("unshare", NEWNS | NEWPID | NEWIPC | (0 if as_root else NEWUSER) | (0 if network else NEWNET))
    if not as_root:
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    if not network:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def _build_root(spec: dict[str, Any]) -> None:
    work = Path(spec["work"])
    mount("none", "/", flags=REC | PRIVATE)
    if spec["tmp_mb"]:
        mount("tmpfs", work, "tmpfs", NOSUID | NODEV, f"size={spec['tmp_mb']}m,nr_inodes=100k,mode=0777")
    root = work / ".root"
    root.mkdir(exist_ok=True)
    mount("tmpfs", root, "tmpfs", NOSUID | NODEV, "size=16m,mode=0755")
    for name in ("tmp", "proc", "dev"):
        (root / name).mkdir()
    mount("tmpfs", root / "tmp", "tmpfs", NOSUID | NODEV, "size=64m,mode=1777")
    for shown in sorted((*(path for path in SYSTEM if Path(path).exists()), *spec["show"])):
        _show(Path(shown), root)  # a folder before what is in it: `.venv` may be in the repository
    for device in DEVICES:
        _bind(Path("/dev") / device, root / "dev" / device)
    (root / "dev" / "shm").mkdir()
    mount("tmpfs", root / "dev" / "shm", "tmpfs", NOSUID | NODEV, "size=64m,mode=1777")
    _bind(work, root / work.relative_to("/"))
    mount("proc", root / "proc", "proc", NOSUID | NODEV)
    os.chdir(root)
    call("pivot_root", ".", ".")
    call("umount2", ".", MNT_DETACH)
    os.chdir("/")


def _show(path: Path, root: Path) -> None:
    """Let a file or folder be seen at its own place, read-only."""
    place = root / path.relative_to("/")
    if place.exists():
        return
    if path.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.readlink())
        return
    _bind(path, place)
    attributes = struct.pack("QQQQ", ATTR_RDONLY | ATTR_NOSUID, 0, 0, 0)
    call("syscall", MOUNT_SETATTR, AT_FDCWD, place, AT_RECURSIVE, attributes, len(attributes))


def _bind(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    mount(path, place, flags=BIND | (0 if path == place else REC))


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except OSError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        raise SystemExit(125) from None
