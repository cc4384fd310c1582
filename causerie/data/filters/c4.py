"""C4's rules: too few sentences, placeholder text, code, and lines about cookies and JavaScript.

Source: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer", 2020, 2.2.
Two departures: C4 drops a page at its first curly bracket, which would lose every page that explains a program, so
their share of the characters is measured instead; and C4's rule that each line ends in punctuation is left out, as in
FineWeb, because it cuts headings and lists out of running text.
"""

from __future__ import annotations

import re
from typing import Final

from causerie.data.filters.words import View

SENTENCE_END: Final = re.compile(r"[.!?…](?=[\s\"'”»)\]]|$)")
POLICY: Final = re.compile(
    r"(terms of use|privacy policy|cookie policy|uses? (of )?cookies|use of cookies|"
    r"politique de confidentialité|conditions d['’]utilisation|utilise(z|nt)? des cookies|utilisation de cookies|"
    r"(enable|activate|activer|requires?|nécessite) javascript|javascript (is|est|must|doit) )",
    re.IGNORECASE,
)
POLICY_SIGNS: Final = ("cookie", "javascript", "privacy pol", "terms of use", "de confidentialité", "d'util", "d’util")
"""One of them stands in every text that `POLICY` matches: plain search is much faster than the pattern."""
POLICY_LINE: Final = 300
"""Characters; a longer line is a paragraph about the matter, not a banner."""


def sentence_count(seen: View) -> float:
    """Number of sentence ends."""
    return float(len(SENTENCE_END.findall(seen.text)))


def curly_brackets(seen: View) -> float:
    """Share of characters that are curly brackets."""
    return (seen.text.count("{") + seen.text.count("}")) / max(len(seen.text), 1)


def placeholder_text(seen: View) -> float:
    """Times that "lorem ipsum" occurs."""
    return float(seen.text.lower().count("lorem ipsum"))


def drop_policy_lines(text: str) -> str:
    """The text without short lines about cookies, privacy policies, terms of use or missing JavaScript."""
    if not _may_be_policy(text):
        return text
    kept = (line for line in text.split("\n") if len(line) > POLICY_LINE or not _is_policy(line))
    return "\n".join(kept).strip()


def _may_be_policy(text: str) -> bool:
    folded = text.casefold()
    return any(sign in folded for sign in POLICY_SIGNS)


def _is_policy(line: str) -> bool:
    return _may_be_policy(line) and bool(POLICY.search(line))
