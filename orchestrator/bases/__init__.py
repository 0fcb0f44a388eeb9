"""The kinds of bases, one file each, without heavy imports, and the code that creates or converts bases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from orchestrator.bases.base import BaseSpec
from orchestrator.bases.from_scratch import ScratchBase
from orchestrator.bases.gguf import GgufBase
from orchestrator.bases.hub import HubBase
from orchestrator.bases.local import LocalBase
from orchestrator.bases.random_weights import RandomBase

BASES: dict[str, type[BaseSpec]] = {
    "from_scratch": ScratchBase,
    "hub": HubBase,
    "local": LocalBase,
    "gguf": GgufBase,
    "random": RandomBase,
}

if TYPE_CHECKING:
    Base = BaseSpec
else:
    Base = Annotated[Union[tuple(BASES.values())], Field(discriminator="kind")]  # noqa: UP007
