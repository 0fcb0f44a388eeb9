"""A saved state belongs to one training: whatever decides its result tells it from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from methods.data.batch import Rollout
from methods.training.state import identity

ROW = Rollout((3, 4), (5, 1), 1.0, 0, "t", 0.5)


def test_everything_of_a_row_is_in_the_identity(make_config: Callable[..., Any]) -> None:
    config = make_config("dpo", pair_rule="same_teacher")
    others = [
        replace(ROW, prompt_ids=(3, 5)), replace(ROW, completion_ids=(5,)), replace(ROW, reward=0.0),
        replace(ROW, group=1), replace(ROW, teacher="u"), replace(ROW, group_mean=0.25), replace(ROW, group_mean=None),
    ]  # fmt: skip
    told = [identity(config, [row], None)["rollouts"] for row in (ROW, *others)]
    assert len(set(told)) == len(told)
    assert identity(config, [ROW], [np.zeros(2)]) != identity(config, [ROW], [np.ones(2)])
    assert identity(config, [replace(ROW)], None) == identity(config, [ROW], None)
