"""What the operating system refuses, in a line: where, why, and what to do about it. Pure."""

from __future__ import annotations

import errno

# errno → the remedy, where there is one for every file.
_REMEDIES = {
    errno.EACCES: "run it as root, or name another place",
    errno.EPERM: "run it as root, or name another place",
    errno.EROFS: "it is mounted read-only: mount it for writing, or name another place",
    errno.ENOSPC: "make room there, and run it again",
    errno.EDQUOT: "make room there, and run it again",
    errno.ENOTDIR: "a part of that path is a file: name another place",
    errno.EEXIST: "something else is there: name another place",
    errno.EISDIR: "name a file",
    errno.ENAMETOOLONG: "name a shorter one",
    errno.ELOOP: "symbolic links that point at each other: name another place",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENOMEM: "free some memory, and run it again",
    errno.EAGAIN: "too many processes: end some (ulimit -u)",
}


# Of no file at all: os.getcwd says this where the directory is gone.
_NOWHERE = "the directory that this was started in is gone; cd to another one"


def remedy(error: OSError) -> str:
    """What to do about it; "" if that depends on what the file is for."""
    return _REMEDIES.get(error.errno or 0, "")


def said(error: OSError) -> str:
    """The line."""
    where = error.filename2 or error.filename
    if where is None and error.errno == errno.ENOENT:
        return _NOWHERE
    text = f"{where.decode(errors='replace') if isinstance(where, bytes) else where}: " if where is not None else ""
    advice = remedy(error)
    return text + (error.strerror or str(error)) + (f"; {advice}" if advice else "")
