"""At most one run uses a store at a time: the holder writes ``lease.json`` and renews it every few seconds.

A second run is refused and names the holder. A lease is taken over once its holder has not renewed it for ``PATIENCE``
seconds by the second run's own clock, so no two clocks are compared. Where the second run can see the holder's process
(same machine, boot and process namespace), it is taken over as soon as that process has ended.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

from execution.errors import Interrupted, UserError
from execution.process import lives, note
from execution.storage import Storage

FILE = "lease.json"
BEAT = 5.0  # seconds between two renewals
PATIENCE = 20.0  # seconds without a renewal after which a holder counts as dead


class Lease:
    """A held lease; ``check`` raises ``Interrupted`` once another run has taken it over."""

    def __init__(self, storage: Storage, held: bytes, beat: float) -> None:
        self._storage, self._held, self._beat = storage, held, beat
        self._stop, self._lost = threading.Event(), False
        self._thread = threading.Thread(target=self._renew, daemon=True, name="lease")
        self._thread.start()

    def _renew(self) -> None:
        while not self._stop.wait(self._beat):
            lease = _read(self._held)
            renewed = _bytes(lease | {"beat": lease["beat"] + 1})
            try:
                if not self._ours(self._storage.read(FILE)):
                    self._lost = True
                    return
                self._storage.write(FILE, renewed)
            except OSError:  # disk full or network down: retried at the next beat
                continue
            self._held = renewed

    def _ours(self, data: bytes | None) -> bool:
        """Whether nobody else holds the lease.

        Compares ids alone: a failed write may still have arrived, so the beat can differ. A missing or unreadable
        file counts as ours: a run that takes a lease over writes it whole.
        """
        current = _read(data or b"")
        return not current or current.get("id") == _read(self._held)["id"]

    def check(self) -> None:
        if self._lost:
            raise Interrupted(f"another run has taken over {self._storage}")

    def end(self) -> None:
        """Stop renewing, and give the lease back if it is still ours and the store answers."""
        self._stop.set()
        self._thread.join(self._beat)
        if self._thread.is_alive():  # a store that cannot be reached is asked again for minutes
            return
        with suppress(OSError):  # a lease that is not removed now is taken over later
            if not self._lost and self._ours(self._storage.read(FILE)):
                self._storage.remove(FILE)


@contextmanager
def hold(
    storage: Storage, progress: Callable[[str], None], beat: float = BEAT, patience: float = PATIENCE
) -> Iterator[Lease]:
    """Hold the store's lease. ``UserError`` names a live holder; a dead one's lease is taken over and reported."""
    before = storage.read(FILE)
    if before is not None:
        _wait_for_death(storage, before, progress, patience)
    mine = _bytes(note() | {"id": uuid4().hex, "beat": 0})
    if not storage.claim(FILE, before, mine):
        raise _taken(storage, storage.read(FILE) or b"{}")
    lease = Lease(storage, mine, beat)
    try:
        yield lease
    finally:
        lease.end()


def left_behind(storage: Storage) -> bool:
    """Whether the holder's process is known to have ended; False where it cannot be seen from here."""
    return lives(_read(storage.read(FILE) or b"")) is False


def _wait_for_death(storage: Storage, held: bytes, progress: Callable[[str], None], patience: float) -> None:
    """Return once the holder counts as dead; ``UserError`` as soon as it renews the lease."""
    lease = _read(held)
    alive = lives(lease)
    if alive:
        raise _taken(storage, held)
    if alive is None:
        progress(f"{_who(lease)} held {storage}: waiting {patience:.0f} s for it to renew its lease")
        until = time.monotonic() + patience
        while time.monotonic() < until:
            time.sleep(min(1.0, patience / 4))
            if storage.read(FILE) != held:
                raise _taken(storage, storage.read(FILE) or held)
    progress(f"{_who(lease)} ended without releasing {storage}: taken over")


def _taken(storage: Storage, held: bytes) -> UserError:
    return UserError(f"{storage} is in use by {_who(_read(held))}: wait for it, or name another --out or --store")


def _who(lease: dict[str, Any]) -> str:
    return f"process {lease.get('pid', '?')} on {lease.get('host', '?')}"


def _read(held: bytes) -> dict[str, Any]:
    """The lease's fields; empty if it cannot be read."""
    try:
        lease = json.loads(held)
    except (ValueError, RecursionError):
        return {}
    return lease if isinstance(lease, dict) else {}


def _bytes(lease: dict[str, Any]) -> bytes:
    return json.dumps(lease).encode()
