"""Instructions that combine answers: two different ones, or the prompt first and then the answer."""

from __future__ import annotations


def two_responses(answer: str) -> bool:
    """Exactly two different answers separated by six asterisks; the text may begin or end with the separator."""
    parts = [part.strip() for part in answer.split("******")]
    kept = [part for part in parts if part]
    return all(parts[1:-1]) and len(kept) == 2 and kept[0] != kept[1]


def repeat_prompt(answer: str, *, prompt_to_repeat: str) -> bool:
    """The answer begins with the prompt, word for word, in any case."""
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())
