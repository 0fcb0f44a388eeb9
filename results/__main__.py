"""``python -m results`` writes the JSON Schema of ``results.json`` to where it is published."""

from __future__ import annotations

from results.schema import PUBLISHED, text

if __name__ == "__main__":
    PUBLISHED.write_text(text(), encoding="utf-8")
