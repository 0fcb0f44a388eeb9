"""The sections of the report in reading order, one module a subject.

A new subject is a new module with its ``SECTION`` and one line here: the page, the figures, the CSV files and the words
for what is missing all follow from this list. The first one is the page's first screen, which has no heading.
"""

from report.section import Section
from report.sections import (
    accuracy,
    activations,
    attribution,
    canary,
    connectivity,
    failures,
    geometry,
    losses,
    opening,
    rollouts,
    search,
    settings,
    similarity,
    spectra,
    sweep,
    time,
    trainings,
)

SECTIONS: list[Section] = [
    opening.SECTION,
    attribution.SECTION,
    accuracy.SECTION,
    rollouts.SECTION,
    trainings.SECTION,
    search.SECTION,
    sweep.SECTION,
    geometry.SECTION,
    activations.SECTION,
    spectra.SECTION,
    connectivity.SECTION,
    similarity.SECTION,
    losses.SECTION,
    canary.SECTION,
    failures.SECTION,
    time.SECTION,
    settings.SECTION,
]
