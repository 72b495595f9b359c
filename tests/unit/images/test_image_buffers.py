import gc
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mammoflow.images import buffers
from mammoflow.images.buffers import KEPT, SMALLEST, empty, give_back


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    monkeypatch.setattr(buffers, "_idle", buffers._Idle())
    return buffers._idle


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_only_when_no_view_is_left():
    first = empty((2 * SMALLEST,), np.uint8)
    view, place = first[10:20].reshape(2, 5), address(first)
    del first
    other = empty((2 * SMALLEST,), np.uint8)
    assert address(other) != place
    del view
    again = empty((SMALLEST, 1), np.uint16)
    assert address(again) == place
    assert (again.shape, again.dtype) == ((SMALLEST, 1), np.uint16)


def test_the_smallest_block_of_up_to_twice_the_size_is_taken(idle):
    sizes = [5 * SMALLEST, 3 * SMALLEST, 2 * SMALLEST]
    arrays = [empty((size,), np.uint8) for size in sizes]
    places = [address(array) for array in arrays]
    del arrays
    assert address(empty((5 * SMALLEST // 2,), np.uint8)) == places[1]
    assert address(empty((SMALLEST,), np.uint8)) == places[2]
    assert len(idle.blocks) == 3
    assert idle.take(6 * SMALLEST) is None


def test_no_more_lies_idle_than_said(idle):
    arrays = [empty((KEPT // 3,), np.uint8) for _ in range(5)]
    del arrays
    assert sum(block.size for block in idle.blocks.values()) <= KEPT
    assert len(idle.blocks) == 3


def test_small_arrays_are_numpys_own(idle):
    array = empty((3, 4), np.float32)
    assert (array.shape, array.dtype) == ((3, 4), np.float32)
    del array
    assert not idle.blocks


def test_threads_never_share_memory():
    def filled(number):
        array = empty((SMALLEST + number,), np.uint8)
        array[:] = number
        gc.collect(0)
        return (array == number).all()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(filled, range(200)))


def resident():
    """Bytes of memory that this process holds and no file backs."""
    return 1024 * int(re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_idle_memory_goes_back_to_the_system(idle):
    arrays = [empty((KEPT // 4,), np.uint8) for _ in range(3)]
    for array in arrays:
        array[:] = 1
    del arrays, array
    held = resident()
    give_back()
    assert not idle.blocks
    assert held - resident() > KEPT // 2
