"""The sources of rollouts, one file each; ``source.py`` is their interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from orchestrator.rollouts.sources.file import FileRollouts
from orchestrator.rollouts.sources.hub import HubRollouts
from orchestrator.rollouts.sources.openai import ApiRollouts
from orchestrator.rollouts.sources.sampled import SampledRollouts
from orchestrator.rollouts.sources.source import RolloutSource
from orchestrator.rollouts.sources.written import WrittenRollouts

SOURCES: dict[str, type[RolloutSource]] = {
    "vllm": SampledRollouts,
    "openai": ApiRollouts,
    "file": FileRollouts,
    "hub": HubRollouts,
    "written": WrittenRollouts,
}

if TYPE_CHECKING:
    Rollouts = RolloutSource
else:
    Rollouts = Annotated[Union[tuple(SOURCES.values())], Field(discriminator="source")]  # noqa: UP007
