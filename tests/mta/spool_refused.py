"""A program: the disk refuses every write to a file for a while (as a limit of the process, so it needs no root).

Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from pathlib import Path

from smtp_intercept.mta.drafts import SMALL_BYTES
from smtp_intercept.mta.spool import Spool, SpoolError
from tests.mta.spools import content_of, files, is_whole, outcome, put, sealed, spool_in

SIZES = (100, SMALL_BYTES + 1)
NO_BYTES = (0, resource.RLIM_INFINITY)
AS_MANY_AS_YOU_LIKE = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


async def main(spool: Spool, directory: Path) -> None:
    names = [await put(spool, sealed(b"x" * size)) for size in SIZES * 2]
    resource.setrlimit(resource.RLIMIT_FSIZE, NO_BYTES)
    refused = await asyncio.gather(
        *(put(spool, sealed(b"y" * size)) for size in SIZES),
        spool.settle(names[0], [outcome()], None, 1.0),
        spool.hold(names),
        return_exceptions=True,
    )
    readable = [entry.id for entry in spool.entries()] == names and all(is_whole(content_of(spool, n)) for n in names)
    resource.setrlimit(resource.RLIMIT_FSIZE, AS_MANY_AS_YOU_LIKE)
    names += [await put(spool, sealed(b"z" * size)) for size in SIZES]
    told = {
        "refused": ["temporary" if isinstance(one, SpoolError) and one.temporary else repr(one) for one in refused],
        "readable": readable,
        "after": len(list(spool.entries())),
        "whole": all(is_whole(content_of(spool, name)) for name in names),
        "files": len(files(directory)),
    }
    print(json.dumps(told, default=str))


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with spool_in(Path(sys.argv[1])) as opened:
        asyncio.run(main(opened, Path(sys.argv[1])))
