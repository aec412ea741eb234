"""Kernels in Triton with which generation runs on CUDA: attention over pages, and what lies between two products.

Each row of a result has bits that depend on that row alone: not on how many rows there are, on which pages a sequence
has, nor on what is beside it. Sizes of tiles, orders of sums and compiled variants never depend on those.

Nothing here imports Triton before a kernel is launched: it comes with torch for CUDA only. What a kernel cannot do, its
function refuses with ValueError, and `check_shapes` says so before anything is allocated.
In shapes: B rows, L tokens of each in this call, H query heads, G key heads, D channels of a head, R of them rotate,
N pages of a row at most, K tokens of a page.
"""

from gristmill.model.generate.kernels.attention import check_shapes, paged_attention, rotate_and_write, write_pages
from gristmill.model.generate.kernels.elementwise import add_rms_norm, rms_norm, silu_mul
from gristmill.model.generate.kernels.launch import available

__all__ = [
    "add_rms_norm",
    "available",
    "check_shapes",
    "paged_attention",
    "rms_norm",
    "rotate_and_write",
    "silu_mul",
    "write_pages",
]
