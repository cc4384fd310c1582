"""The learned score's place among the measures: `data build --quality-model` puts the model's score there.

Source of the idea: Li et al., "DataComp-LM: In search of the next generation of training sets", 2024, section 4.4.
"""

from __future__ import annotations

from causerie.data.filters.words import View


def unscored(_: View) -> float:
    """The score of a text when no model was asked: nothing is held against it."""
    return 1.0
