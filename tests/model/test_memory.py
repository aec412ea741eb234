"""Memory: of pixels that is used again, never while anything looks at it; of decoding, a few bytes a pixel."""

from __future__ import annotations

import gc
import io
import subprocess
import sys
import threading

import pytest
import torch
from PIL import Image

from gristmill.model.processing import memory
from gristmill.model.processing.memory import KEPT, SMALL, empty_floats

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_free() -> None:
    memory._free.clear()


def test_a_tensor_is_as_torch_makes_it() -> None:
    tensor = empty_floats((4, SMALL), CPU)
    assert tensor.shape == (4, SMALL) and tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert tensor.fill_(2.0).sum() == 8 * SMALL
    assert empty_floats((2, 3), CPU).shape == (2, 3)
    assert empty_floats((2, SMALL), torch.device("meta")).is_meta


def test_memory_that_nobody_looks_at_is_used_again() -> None:
    tensor = empty_floats((4, SMALL), CPU)
    place = tensor.data_ptr()
    del tensor
    assert empty_floats((2, SMALL), CPU).data_ptr() == place
    assert empty_floats((5, SMALL), CPU).data_ptr() != place


def test_memory_that_anything_looks_at_is_not() -> None:
    tensor = empty_floats((2, SMALL), CPU).fill_(3.0)
    weight = torch.ones(2, SMALL, requires_grad=True)
    looks = {"view": tensor[1], "array": tensor.numpy()[:, :5], "product": (tensor * weight).sum()}
    del tensor
    for _ in range(3):  # each look alone keeps it
        other = empty_floats((2, SMALL), CPU).fill_(0.0)
        if "product" in looks:
            looks.pop("product").backward()
            assert weight.grad is not None and (weight.grad == 3).all()
        elif "array" in looks:
            assert (looks.pop("array") == 3).all()
        else:
            assert (looks.pop("view") == 3).all()
        del other
        gc.collect()


def test_few_blocks_are_kept_and_a_large_one_is_not_spent_on_little() -> None:
    tensors = [empty_floats((size, SMALL), CPU) for size in (16, 17, 18, 19)]
    del tensors
    assert len(memory._free) == KEPT
    small = empty_floats((1, SMALL), CPU)
    assert len(memory._free) == KEPT and small.shape == (1, SMALL)


def test_threads_never_get_the_same_memory() -> None:
    faults: list[int] = []

    def work(number: int) -> None:
        for _ in range(200):
            tensor = empty_floats((1, SMALL), CPU)
            tensor[0, ::4096] = number
            if (tensor[0, ::4096] != number).any():
                faults.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


DECODED = """
import resource, sys
from gristmill.model.processing.image_file import decode_image
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
decode_image(data)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("mode", "bytes_a_pixel"), [("RGBA", 8), ("P", 5)])
def test_decoding_holds_the_picture_and_its_pixels_and_little_beside(mode: str, bytes_a_pixel: int) -> None:
    target = io.BytesIO()
    Image.new(mode, (4000, 3000)).save(target, "PNG")
    done = subprocess.run([sys.executable, "-c", DECODED], input=target.getvalue(), capture_output=True, check=True)
    assert int(done.stdout) * 1024 < 12_000_000 * bytes_a_pixel * 1.25  # Pillow's alone would be 23 and 11
