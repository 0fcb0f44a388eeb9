"""One run a store at a time: who holds it says so in ``lease.json`` and renews that every few seconds.

A second run says who holds what. A lease is taken over when its holder has not renewed it for ``PATIENCE`` seconds of
the taker's own clock; nobody's clock is compared with another's. Only where the holder is surely one of the processes
that the taker sees (the same machine, since the same start of it, the same process namespace) does its process decide.
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
            told = _read(self._held)
            renewed = _bytes(told | {"beat": told["beat"] + 1})
            try:
                if not self._ours(self._storage.read(FILE)):
                    self._lost = True
                    return
                self._storage.write(FILE, renewed)
            except OSError:  # a disk that is full, a network that is away: the next beat tries again
                continue
            self._held = renewed

    def _ours(self, found: bytes | None) -> bool:
        """Whether nobody else holds it. Its beat says nothing: a write that was reported lost may have arrived.

        One that is gone or cannot be read was damaged: whoever takes a lease over writes it whole.
        """
        told = _read(found or b"")
        return not told or told.get("id") == _read(self._held)["id"]

    def check(self) -> None:
        if self._lost:
            raise Interrupted(f"another run has taken over {self._storage}")

    def end(self) -> None:
        """Stop renewing, and give the lease back if it is still ours."""
        self._stop.set()
        self._thread.join()
        with suppress(OSError):  # what cannot be given back now is taken over later
            if not self._lost and self._ours(self._storage.read(FILE)):
                self._storage.remove(FILE)


@contextmanager
def hold(
    storage: Storage, say: Callable[[str], None], beat: float = BEAT, patience: float = PATIENCE
) -> Iterator[Lease]:
    """Hold the store's lease. ``UserError`` names a living holder; a dead one's lease is taken over, said."""
    before = storage.read(FILE)
    if before is not None:
        _wait_for_death(storage, before, say, patience)
    mine = _bytes(note() | {"id": uuid4().hex, "beat": 0})
    if not storage.claim(FILE, before, mine):
        raise _taken(storage, storage.read(FILE) or b"{}")
    lease = Lease(storage, mine, beat)
    try:
        yield lease
    finally:
        lease.end()


def left_behind(storage: Storage) -> bool:
    """Whether the run that holds the store is dead for certain: its process would be one that this one sees."""
    return lives(_read(storage.read(FILE) or b"")) is False


def _wait_for_death(storage: Storage, held: bytes, say: Callable[[str], None], patience: float) -> None:
    """Return when the holder is dead; ``UserError`` as soon as it shows life."""
    told = _read(held)
    alive = lives(told)
    if alive:
        raise _taken(storage, held)
    if alive is None:
        say(f"{_who(told)} held {storage}: looking for {patience:.0f} s whether it still does")
        until = time.monotonic() + patience
        while time.monotonic() < until:
            time.sleep(min(1.0, patience / 4))
            if storage.read(FILE) != held:
                raise _taken(storage, storage.read(FILE) or held)
    say(f"{_who(told)} ended without giving {storage} back: taken over")


def _taken(storage: Storage, held: bytes) -> UserError:
    return UserError(f"{storage} is in use by {_who(_read(held))}: wait for it, or name another --out or --store")


def _who(told: dict[str, Any]) -> str:
    return f"process {told.get('pid', '?')} on {told.get('host', '?')}"


def _read(held: bytes) -> dict[str, Any]:
    """What a lease tells; nothing where it cannot be read."""
    try:
        told = json.loads(held)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _bytes(told: dict[str, Any]) -> bytes:
    return json.dumps(told).encode()
