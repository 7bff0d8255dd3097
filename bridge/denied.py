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
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
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
    "other processes": "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp pidfd_open "
    "pidfd_getfd pidfd_send_signal kill tkill rt_sigqueueinfo rt_tgsigqueueinfo migrate_pages move_pages",
    "new processes": "fork vfork execve execveat",
    "the kernel": "init_module finit_module delete_module kexec_load kexec_file_load bpf perf_event_open userfaultfd "
    "io_uring_setup io_uring_enter io_uring_register reboot syslog lookup_dcookie iopl ioperm modify_ldt personality",
    "the machine": "swapon swapoff acct quotactl quotactl_fd sethostname setdomainname vhangup fanotify_init "
    "name_to_handle_at open_by_handle_at mknod mknodat",
    "keys": "add_key request_key keyctl",
    "clocks": "clock_settime clock_settime64 settimeofday stime adjtimex clock_adjtime clock_adjtime64",
}


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
