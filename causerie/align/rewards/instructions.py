"""Verifiable instructions: the share of a row's instructions that the answer follows (IFEval, arXiv:2311.07911).

The checkers live with the evaluations, a layer above; who runs the stage passes the function in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from causerie.align.rewards import Reward, each
from causerie.core import CauserieError

Follows = Callable[[str, Mapping[str, Any], str], bool]
"""(instruction id, its arguments, the answer) → whether the answer follows it; `causerie.evals.follows` is one."""


def instructions_followed(follows: Follows) -> Reward:
    """Reward in [0, 1] for rows with `instruction_id_list` and `kwargs`, as in IFEval's data file.

    Raises (when called):
        CauserieError: CAU-4105 for a row whose instructions and arguments do not go together.
    """

    def judge(row: Mapping[str, Any], text: str) -> float:
        names, arguments = row.get("instruction_id_list"), row.get("kwargs")
        if not isinstance(names, list) or not isinstance(arguments, list) or not 0 < len(names) == len(arguments):
            raise CauserieError(
                "CAU-4105",
                "a prompt has no instruction_id_list with as many kwargs",
                where=str(row.get("id", row.get("prompt")))[:200],
                fix="use rows of IFEval's form, or another reward",
            )
        return sum(follows(str(n), a or {}, text) for n, a in zip(names, arguments, strict=True)) / len(names)

    return each(judge)
