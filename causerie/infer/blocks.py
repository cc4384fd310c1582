"""Blocks of the key-value cache: who holds which, and which hold a prefix that may be used again.

A block is a fixed number of token positions in every layer's cache. A sequence holds a list of blocks (its block
table). Blocks are counted, not copied: sequences that begin alike share the full blocks of their common beginning.
A block that nobody holds keeps its content until it is needed for something else, oldest first.

The name of a block's content is a chained digest: of the salt (one per tenant, so that nobody can learn from timing
what another tenant asked), the digest of the block before, and the block's token ids.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b


def root_digest(salt: str) -> bytes:
    """What the first block of a sequence is chained to: 16 bytes, different for every salt."""
    return blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16, person=b"causerie-root").digest()


def chain_digest(parent: bytes, ids: Sequence[int]) -> bytes:
    """Digest of a full block: 16 bytes that stand for its ids and everything before them."""
    return blake2b(parent + array("q", ids).tobytes(), digest_size=16).digest()


class OutOfBlocks(Exception):
    """More blocks were asked for than are free; the scheduler answers by preempting a sequence."""


class BlockPool:
    """Reference counts and content digests of `n_blocks` blocks. Not thread-safe."""

    def __init__(self, n_blocks: int) -> None:
        self.n_blocks = n_blocks
        self._holders = [0] * n_blocks
        self._digest: list[bytes | None] = [None] * n_blocks
        self._block_of: dict[bytes, int] = {}
        self._free: OrderedDict[int, None] = OrderedDict((block, None) for block in range(n_blocks))

    @property
    def n_free(self) -> int:
        """Blocks that nobody holds; some of them keep a reusable prefix until they are taken."""
        return len(self._free)

    def holders(self, block: int) -> int:
        """How many sequences hold the block."""
        return self._holders[block]

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks, all or none; what they held is forgotten.

        Raises:
            OutOfBlocks: when fewer are free.
        """
        if count > len(self._free):
            raise OutOfBlocks(f"{count} blocks asked for, {len(self._free)} free")
        taken = []
        for _ in range(count):
            block, _ = self._free.popitem(last=False)
            self._forget(block)
            self._holders[block] = 1
            taken.append(block)
        return taken

    def release(self, blocks: Iterable[int]) -> None:
        """Give up one hold on each block of a sequence's table.

        Raises:
            ValueError: when a block is not held.
        """
        for block in reversed(list(blocks)):  # the end of a sequence is reused first, its beginning last
            if self._holders[block] < 1:
                raise ValueError(f"block {block} is not held")
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None
                if self._digest[block] is None:
                    self._free.move_to_end(block, last=False)

    def register(self, block: int, digest: bytes) -> None:
        """Name the content of a held, full block so that `find` sees it; the first block of that name is kept."""
        if digest not in self._block_of:
            self._forget(block)
            self._block_of[digest] = block
            self._digest[block] = digest

    def find(self, digests: Iterable[bytes]) -> list[int]:
        """Blocks that hold the longest known beginning of the chain; they are not held yet."""
        found = []
        for digest in digests:
            block = self._block_of.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def n_free_after_hold(self, blocks: Iterable[int]) -> int:
        """How many blocks would be free if these were held."""
        return len(self._free) - sum(1 for block in blocks if self._holders[block] == 0)

    def hold(self, blocks: Iterable[int]) -> None:
        """Hold blocks given by `find`."""
        for block in blocks:
            if self._holders[block] == 0:
                del self._free[block]
            self._holders[block] += 1

    def forget_all(self) -> None:
        """Forget every prefix, e.g. after the weights changed; who holds what stays."""
        for block in range(self.n_blocks):
            self._forget(block)

    def _forget(self, block: int) -> None:
        digest = self._digest[block]
        if digest is not None:
            del self._block_of[digest]
            self._digest[block] = None
