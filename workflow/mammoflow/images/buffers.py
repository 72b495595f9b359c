"""Memory of pictures, used again by the next ones: fresh pages from the system cost more than most steps do."""

from math import prod
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

SMALLEST = 2**20  # bytes; the allocator itself keeps smaller ones
KEPT = 128 * 2**20  # bytes at most that lie idle, of all threads together


class _Memory:
    """A block's owner while an array or any view of one uses it."""

    def __init__(self, block: NDArray[np.uint8], idle: "_Idle"):
        self.block, self.idle = block, idle  # a module's own names are gone when the interpreter ends
        self.__array_interface__ = block.__array_interface__

    def __del__(self) -> None:
        self.idle.add(self.block)


class _Idle:
    """Blocks that nothing uses, the longest idle first. The lock is reentrant: collecting garbage may add one."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.blocks: dict[int, NDArray[np.uint8]] = {}

    def add(self, block: NDArray[np.uint8]) -> None:
        with self.lock:
            self.blocks[id(block)] = block
            while sum(kept.size for kept in list(self.blocks.values())) > KEPT:
                del self.blocks[next(iter(self.blocks))]

    def take(self, size: int) -> NDArray[np.uint8] | None:
        """Return a block of `size` bytes to twice as many, the smallest."""
        with self.lock:
            fitting = [block for block in list(self.blocks.values()) if size <= block.size <= 2 * size]
            return self.blocks.pop(id(min(fitting, key=len)), None) if fitting else None

    def forget(self) -> None:
        with self.lock:
            self.blocks.clear()


_idle = _Idle()


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array as `numpy.empty` does; when it and its views are gone, another may get its memory."""
    size = prod(shape) * np.dtype(dtype).itemsize
    if size < SMALLEST:
        return np.empty(shape, dtype)
    block = _idle.take(size)
    memory = _Memory(_fresh(size) if block is None else block, _idle)
    return np.asarray(memory)[:size].view(dtype).reshape(shape)


def _fresh(size: int) -> NDArray[np.uint8]:
    """Return a block of the system's, which has it back as soon as it is let go; the allocator would keep some."""
    return np.frombuffer(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS), np.uint8)


def give_back() -> None:
    """Give memory that lies idle back to the system, before a library takes as much of its own."""
    _idle.forget()
