"""Prices: dated versions that never change, so that every invoice can be computed again from the usage rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select

from causerie.core import CauserieError
from causerie.store import Store, objects

PRICE: Final = "price"
"""Kind of stored object with a price version: `{"id", "model", "from", "currency", "input", "output",
"cached_input"}`, the three in units of the currency for a million tokens; owned by the organization ("")."""
FRESH_SECONDS: Final = 60.0
"""How long prices that another process may have changed are believed; changes by this one count at once."""
ALL: Final = "*"
"""In place of a model: every model without a price of its own."""


def price_at(prices: Sequence[dict[str, Any]], model: str | None, moment: float) -> dict[str, Any] | None:
    """The version in force for a model at a moment: of the exact name, else of all its versions, else of all models.

    Args:
        prices: every version, in the order in which they come into force.
        model: `name` or `name@N`.
    """
    if model is None:
        return None
    for name in (model, model.rpartition("@")[0] or model, ALL):
        known = [each for each in prices if each["model"] == name and each["from"] <= moment]
        if known:
            return known[-1]
    return None


def amount(price: dict[str, Any], given: int, cached: int, drawn: int) -> float:
    """What tokens cost, in units of the price's currency; cached ones are part of those given."""
    cached_price = price.get("cached_input")
    cached_price = price["input"] if cached_price is None else cached_price
    return float(((given - cached) * price["input"] + cached * cached_price + drawn * price["output"]) / 1e6)


@dataclass
class PriceBook:
    """The price versions of a database, as read a moment ago."""

    store: Store
    _prices: list[dict[str, Any]] = field(default_factory=list)
    _read: float = float("-inf")
    _epoch: int = -1

    def prices(self) -> list[dict[str, Any]]:
        """Every version, in the order in which they come into force; the last known while the database is silent."""
        epoch = self.store.epoch(PRICE)
        if epoch != self._epoch or time.monotonic() - self._read > FRESH_SECONDS:
            query = select(objects.c.body).where(objects.c.kind == PRICE, objects.c.owner == "")
            try:
                rows = self.store.read(query.order_by(objects.c.rank))
                self._prices = sorted((dict(row.body) for row in rows), key=lambda price: price["from"])
            except CauserieError:
                pass
            self._read, self._epoch = time.monotonic(), epoch
        return self._prices

    def id_for(self, model: str | None, moment: float) -> str | None:
        """The id of the version in force for a model."""
        prices = self.prices()
        found = price_at(prices, model, moment) if prices else None
        return found["id"] if found else None


def price_book(store: Store) -> PriceBook:
    """The prices of a database."""
    return store.remember("price book", lambda: PriceBook(store))
