"""The content of queued messages, opened for whoever carries them away. Changes nothing."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import BinaryIO

from smtp_intercept.mta import database, faults, ids
from smtp_intercept.mta.drafts import Layout
from smtp_intercept.mta.faults import NoSuchMessageError, SpoolError
from smtp_intercept.mta.records import Records


class Contents:
    """For any thread, by a connection of its own: a statement that another thread has under way would show the runner
    an old state of the queue, and what has been delivered would go once more."""

    def __init__(self, layout: Layout) -> None:
        self._directory = layout.directory
        self._connection = database.connect(layout.database, read_only=True)
        self._records, self._lock = Records(self._connection), threading.Lock()

    def open(self, queue_id: str) -> BinaryIO:
        """As `content_of`."""
        with self._lock:
            return content_of(self._directory, self._records, queue_id)

    def close(self) -> None:
        """What was opened stays open."""
        with self._lock:
            self._connection.close()


def content_of(directory: Path, records: Records, queue_id: str) -> BinaryIO:
    """As `Spool.content`; also for the command."""
    layout = Layout(directory)
    if (seq := ids.number_of(queue_id)) is None:
        raise NoSuchMessageError(queue_id)
    with database.translated(layout.database):
        file = records.file(seq)
        if file is None:
            raise NoSuchMessageError(queue_id)
        if not file:
            if (data := records.data(seq)) is None:  # deleted since the line before
                raise NoSuchMessageError(queue_id)
            return io.BytesIO(data)
    try:
        return layout.content(file).open("rb")
    except FileNotFoundError:
        if records.file(seq) is None:
            raise NoSuchMessageError(queue_id) from None
        raise SpoolError(f"{layout.content(file)}: the content of {queue_id} is missing; delete it") from None
    except OSError as error:
        raise faults.of_system(error, layout.content(file)) from error
