"""The system calls that no process of the gateway makes once it works: a broken one is refused them. Data only.

Denied by name and not allowed by name: a Python, a C library or a kernel that is newer makes calls that no list of ours
knows, and mail must go on. What the capabilities and the user forbid anyway is named too: the kernel's code behind it
is then out of reach.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

CLONE_THREAD = 0x1_0000  # linux/sched.h
SOCK_TYPE = 0xF  # linux/net.h
FAMILIES = range(64)  # as many as there are, and some to come (linux/socket.h has 46)
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET = 1, 2, 10, 16, 17
SOCK_RAW, SOCK_PACKET = 3, 10


class Operator(Enum):
    """How an argument is compared; the values are libseccomp's."""

    NOT_EQUAL = 1
    EQUAL = 4
    GREATER = 6
    MASKED_EQUAL = 7


@dataclass(frozen=True, slots=True)
class Argument:
    """One of a call's, from 0. ``mask`` is for `Operator.MASKED_EQUAL`."""

    index: int
    operator: Operator
    value: int
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Denial:
    """A call by its name, with ``error`` for an answer, if all of ``when`` holds."""

    call: str
    when: tuple[Argument, ...] = ()
    error: int = errno.EPERM


GROUPS = {
    "mounts": "mount umount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick "
    "pivot_root chroot",
    "namespaces": "setns unshare",
    "other processes": "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_getfd "
    "migrate_pages move_pages",
    "signals": "kill tkill pidfd_open pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo",
    "new processes": "fork vfork execve execveat",
    "the kernel": "init_module finit_module delete_module kexec_load kexec_file_load bpf perf_event_open userfaultfd "
    "io_uring_setup io_uring_enter io_uring_register reboot syslog lookup_dcookie iopl ioperm modify_ldt personality",
    "the machine": "swapon swapoff acct quotactl quotactl_fd sethostname setdomainname vhangup fanotify_init "
    "name_to_handle_at open_by_handle_at",
    "files that are none": "mknod mknodat",
    "keys": "add_key request_key keyctl",
    "clocks": "clock_settime clock_settime64 settimeofday stime adjtimex clock_adjtime clock_adjtime64",
}

# What whoever starts the others does need: it ends them, too, and they live in namespaces that it has entered. What
# starts programs and never such a process needs the first less than that.
STARTING = frozenset({"signals", "new processes", "mounts", "namespaces", "files that are none"})
EXECUTING = STARTING - {"mounts", "namespaces"}
# Of namespaces, those that it does not: a user's would give it everything once more (linux/sched.h).
_NEW_CGROUP, _NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_PID = (1 << bit for bit in (25, 26, 27, 28, 29))
_KIND_OF_FILE, _CHARACTERS, _BLOCKS = 0o170000, 0o020000, 0o060000  # S_IFMT, S_IFCHR, S_IFBLK
FOREIGN = (_NEW_CGROUP, _NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_PID)


def denials_of_root(families: Iterable[int], spared: frozenset[str] = STARTING) -> Iterator[Denial]:
    """For a process that stays root, starts others, and has none of ``spared`` denied. They inherit it: what it denies
    must be denied to all of them."""
    yield from (Denial(name) for group, names in GROUPS.items() if group not in spared for name in names.split())
    for call in ("unshare", "clone"):
        for kind in FOREIGN:
            yield Denial(call, (Argument(0, Operator.MASKED_EQUAL, kind, kind),))
    for call, mode in (("mknod", 1), ("mknodat", 2)):  # a vendor's program may make a pipe
        for kind in (_CHARACTERS, _BLOCKS):
            yield Denial(call, (Argument(mode, Operator.MASKED_EQUAL, kind, _KIND_OF_FILE),))
    yield Denial("clone3", error=errno.ENOSYS)  # as below
    yield from _sockets(frozenset(families), raw=True)


def denials(families: Iterable[int], *, raw: bool, pid: int) -> Iterator[Denial]:
    """For the process ``pid``, which opens sockets of these families only, and with ``raw`` raw ones."""
    yield from (Denial(name) for names in GROUPS.values() for name in names.split())
    # A process of its own has no CLONE_THREAD, and so has a user namespace; clone3's flags are not to be seen from
    # here, and without it the C library does with clone.
    yield Denial("clone", (Argument(0, Operator.MASKED_EQUAL, 0, CLONE_THREAD),))
    yield Denial("clone3", error=errno.ENOSYS)
    yield Denial("tgkill", (Argument(0, Operator.NOT_EQUAL, pid),))  # abort(3) is one's own
    yield Denial("prlimit64", (Argument(0, Operator.NOT_EQUAL, 0),))
    yield from _sockets(frozenset(families), raw=raw)


def _sockets(families: frozenset[int], *, raw: bool) -> Iterator[Denial]:
    for family in (family for family in FAMILIES if family not in families):
        yield Denial("socket", (Argument(0, Operator.EQUAL, family),), errno.EAFNOSUPPORT)
    yield Denial("socket", (Argument(0, Operator.GREATER, FAMILIES[-1]),), errno.EAFNOSUPPORT)
    for family in (AF_INET, AF_INET6) if not raw else ():
        for kind in (SOCK_RAW, SOCK_PACKET):  # netlink's are of the first kind too
            yield Denial(
                "socket", (Argument(0, Operator.EQUAL, family), Argument(1, Operator.MASKED_EQUAL, kind, SOCK_TYPE))
            )
