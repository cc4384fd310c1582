"""LoRA adapters by request: rows of one batch may each use another adapter, or none.

The rows of an adapter stand together in a step (a lane), so that its low-rank term is two small products on a slice,
added to the common product of all rows. Where layers with a common input were joined into one product, their terms
are joined too: the A matrices above each other, the B matrices on a diagonal.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from causerie.core import CauserieError
from causerie.model import ModelShape, Transformer, load_adapter, lora_parameters

Key = tuple[str, ...]
"""Names of the linear layers that were joined into one product."""


@dataclass(frozen=True)
class Site:
    """A product of the model to which adapters may add."""

    outputs: tuple[int, ...]
    """Outputs of each of its layers."""
    n_in: int
    order: Tensor | None = None
    """Which of the joined outputs comes where; None: as they are."""


@dataclass(frozen=True)
class Adapter:
    """The low-rank terms of one adapter, by site: A (r, in) times the scale, and B transposed (r, out)."""

    name: str
    uid: int
    """Never used again, so that cached blocks of an adapter loaded later under the same name are not mixed up."""
    terms: dict[Key, tuple[Tensor, Tensor]]

    def add(self, key: Key, x: Tensor, out: Tensor) -> None:
        """Add its term of a site, if it has one, to `out` (..., out) in place, given the site's input `x` (..., in)."""
        term = self.terms.get(key)
        if term is not None:
            down, up = term
            out += (x.to(down.dtype) @ down.T @ up).to(out.dtype)


class Lanes:
    """The model's sites, the loaded adapters, and which rows of the current step belong to whom."""

    def __init__(self) -> None:
        self.sites: dict[Key, Site] = {}
        self.adapters: dict[str, Adapter] = {}
        self._uids = itertools.count(1)
        self.rows: list[tuple[Adapter, int, int]] = []
        """Adapter, first row and row after the last, of the step being computed."""
        self.wanted: Tensor | None = None
        """Rows of the step whose hidden states are asked for; None: all of them."""

    def register(self, names: Key, outputs: Sequence[int], n_in: int, order: Tensor | None = None) -> Key:
        """Tell of a product of the model, as a `Site`; returns its key."""
        self.sites[names] = Site(tuple(outputs), n_in, order)
        return names

    def plan(self, counts: Sequence[tuple[Adapter | None, int]], wanted: Sequence[int] | None = None) -> None:
        """Note the step's rows: an adapter, or None, and a number of rows each, in order; and which are wanted."""
        self.rows, first = [], 0
        for adapter, count in counts:
            last = first + count
            if adapter is not None:
                if self.rows and self.rows[-1][0] is adapter and self.rows[-1][2] == first:
                    first = self.rows.pop()[1]
                self.rows.append((adapter, first, last))
            first = last
        # Rows of adapters are told by their places, so with any all are computed; with none wanted one is.
        self.wanted = None if wanted is None or self.rows else torch.tensor(wanted or [0])

    def add(self, key: Key, x: Tensor, out: Tensor) -> None:
        """Add the step's low-rank terms of a site to `out` (1, N, out) in place, given its input `x` (1, N, in)."""
        for adapter, first, last in self.rows:
            adapter.add(key, x[0, first:last], out[0, first:last])

    def find(self, name: str | None) -> Adapter | None:
        """The adapter of a name, None for None.

        Raises:
            CauserieError: CAU-3111 when there is none of that name.
        """
        if name is None:
            return None
        if name not in self.adapters:
            known = ", ".join(sorted(self.adapters)) or "none"
            raise CauserieError("CAU-3111", f"no adapter {name!r} is loaded", where="adapter", fix=f"loaded: {known}")
        return self.adapters[name]

    def load(self, name: str, folder: Path, shape: ModelShape, dtype: torch.dtype, device: torch.device) -> None:
        """Load a peft adapter folder under a name.

        Raises:
            CauserieError: CAU-3111 when the name is in use, CAU-3008 when the adapter does not fit the model.
        """
        if name in self.adapters:
            raise CauserieError("CAU-3111", f"an adapter {name!r} is loaded", where="adapter", fix="unload it first")
        weights = {
            part: (down.to(device, dtype), up.to(device, dtype))
            for part, (down, up) in read_terms(folder, shape).items()
        }
        known = {part for key in self.sites for part in key}
        if not weights.keys() <= known:
            raise _unfit(folder, f"the model has no layer {sorted(weights.keys() - known)[0]}")
        terms = {key: self._joined(folder, key, site, weights) for key, site in self.sites.items()}
        self.adapters[name] = Adapter(
            name, next(self._uids), {key: term for key, term in terms.items() if term is not None}
        )

    def unload(self, name: str) -> None:
        """Forget an adapter; sequences that use it keep it to their end.

        Raises:
            CauserieError: CAU-3111 when there is none of that name.
        """
        self.find(name)
        del self.adapters[name]

    def _joined(
        self, folder: Path, key: Key, site: Site, weights: dict[str, tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor] | None:
        downs, ups, first = [], [], 0
        for part, n_out in zip(key, site.outputs, strict=True):
            if part in weights:
                down, up = weights[part]
                if down.shape[1] != site.n_in or up.shape[0] != n_out or down.shape[0] != up.shape[1]:
                    raise _unfit(folder, f"the matrices of {part} have other sizes")
                wide = up.new_zeros(up.shape[1], sum(site.outputs))
                wide[:, first : first + n_out] = up.T
                downs.append(down)
                ups.append(wide)
            first += n_out
        if not downs:
            return None
        joined = torch.cat(ups)
        return torch.cat(downs), joined if site.order is None else joined[:, site.order]


def read_terms(folder: Path, shape: ModelShape) -> dict[str, tuple[Tensor, Tensor]]:
    """An adapter's matrices by layer name: A (r, in) times the scale, and B (out, r).

    Raises:
        CauserieError: CAU-3008 when the adapter does not fit a model of this shape.
    """
    with torch.device("meta"):
        bare = Transformer(shape)
    for module in bare.modules():  # parameters that have a shape and no memory
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(torch.zeros(1).expand(parameter.shape), requires_grad=False))
    load_adapter(bare, folder)
    matrices = {name: parameter.detach() for name, parameter in lora_parameters(bare).items()}
    terms = {}
    for name in [name.removesuffix(".lora_A") for name in matrices if name.endswith(".lora_A")]:
        scale = float(bare.get_submodule(name).scale)  # type: ignore[arg-type]
        terms[name] = (matrices[f"{name}.lora_A"] * scale, matrices[f"{name}.lora_B"])
    return terms


def _unfit(folder: Path, cause: str) -> CauserieError:
    fix = "use the base it was made for"
    return CauserieError("CAU-3008", f"the adapter does not fit: {cause}", where=str(folder), fix=fix)
