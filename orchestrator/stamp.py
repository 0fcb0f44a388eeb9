"""What a report was made from, so that one that still holds is not made again. Light: no heavy import."""

from __future__ import annotations

from orchestrator.fingerprint import key
from orchestrator.runner import Outcome
from orchestrator.store import Store, read_json
from orchestrator.study import Study

FILE = "stamp.json"


def stamp(study: Study, outcome: Outcome) -> str:
    """The study, its finished steps, its failures, as one key."""
    steps = {step.title: step.key for step in outcome.steps}
    told = study.model_dump(mode="json", exclude={"placement", "data"})
    return key([told, list(study.methods), steps, outcome.failed, outcome.blocked])


def up_to_date(study: Study, outcome: Outcome, store: Store) -> bool:
    """Whether the report that stands there is that of this study and these steps."""
    return read_json(store.root / "report" / FILE).get("of") == stamp(study, outcome)
