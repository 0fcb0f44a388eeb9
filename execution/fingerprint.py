"""Identity: a value's canonical JSON, and the key that is its hash.

Two steps are the same step exactly when their payloads have the same canonical JSON. Values without one unambiguous
encoding (NaN, infinities, sets, paths, tensors) are refused.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY_LENGTH = 10  # hex digits: 40 bits; the full payload is compared as well wherever keys match


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; ``TypeError`` for a value without one unambiguous encoding."""
    _refuse(value, "payload")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def key(value: Any) -> str:
    """The first ``KEY_LENGTH`` hex digits of the SHA-256 of the canonical JSON."""
    return digest(canonical(value))


def digest(text: str) -> str:
    """The key of the value whose canonical JSON is ``text``."""
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files below ``folder`` but the hidden ones, in hex."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = {p.relative_to(folder).as_posix(): p for p in files}
    visible = {n: file_hash(p) for n, p in names.items() if not any(x.startswith(".") for x in n.split("/"))}
    return hashlib.sha256(canonical(visible).encode()).hexdigest()


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """The fields in which two payloads differ, one line each: ``config.learning_rate: 5e-07 -> 5e-06``."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        lines: list[str] = []
        for name in sorted(set(old) | set(new)):
            path = f"{where}.{name}" if where else str(name)
            if name not in old or name not in new:
                lines.append(f"{path}: {old.get(name, '(none)')} -> {new.get(name, '(none)')}")
            else:
                lines.extend(differences(old[name], new[name], path))
        return lines
    return [] if old == new else [f"{where}: {old} -> {new}"]


def _refuse(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{where}: the key {name!r} is not a string, so it cannot be fingerprinted")
            _refuse(item, f"{where}.{name}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _refuse(item, f"{where}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{where}: {value} cannot be fingerprinted")
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise TypeError(f"{where}: a {type(value).__name__} cannot be fingerprinted")
