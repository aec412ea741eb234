"""One sample as bytes: `{key}.json`, arrays as `{key}.<name>.npy`, raw files as `{key}.<extension>`, and back.

Any tar tool and plain webdataset read it; the same sample is the same bytes wherever and whenever it is written. Arrays
are numpy's own format, version 1.0, without pickle; they come back as views of the bytes that were read.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

_DTYPES = ("bool", *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)))
_DTYPES += ("float16", "float32", "float64")
# Nothing begins or ends with "_": TarWriter drops such fields, and readers skip members named "__...__".
KEY = re.compile(r"[0-9a-z][0-9a-z_-]{0,59}")
_NAME = re.compile(r"[0-9a-z](?:[0-9a-z_]{0,30}[0-9a-z])?")
_EXTENSION = re.compile(rf"(?=.{{1,36}}$){_NAME.pattern}(?:\.{_NAME.pattern})*")
HEADER = 512  # of a tar: members begin at multiples of it
_LARGEST = 8 << 30  # bytes from which on a tar header cannot tell a member's size


class Sample(NamedTuple):
    """Arrays are writable views of the bytes read for this sample and of no other; `files` are raw, by extension."""

    key: str
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    files: dict[str, bytes]


def fields_of(
    key: str, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray], files: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The members of a sample by extension. Raises ValueError."""
    fields: dict[str, bytes] = {}
    try:
        text = json.dumps(dict(meta), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        fields["json"] = text.encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"sample {key!r}: its metadata is not JSON that any reader reads: {error}") from error
    for name, array in arrays.items():
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"sample {key!r}: array name {name!r} is not allowed: 1 to 32 of 0-9 a-z _, no _ at an end"
            )
        if not isinstance(array, np.ndarray) or np.ma.isMaskedArray(array) or array.dtype.name not in _DTYPES:
            kind = f"{type(array).__name__} of {getattr(array, 'dtype', 'no dtype')}"
            raise ValueError(f"sample {key!r}: {name} is {kind}, allowed are ndarray of {', '.join(_DTYPES)}")
        stream = io.BytesIO()
        fixed = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        np.lib.format.write_array(stream, fixed, version=(1, 0), allow_pickle=False)
        fields[f"{name}.npy"] = stream.getvalue()
    for extension, data in files.items():
        if not _EXTENSION.fullmatch(extension) or extension == "json" or extension.split(".")[-1] == "npy":
            raise ValueError(
                f"sample {key!r}: extension {extension!r} is not allowed: at most 36 of 0-9 a-z _ . as in 'image.jpg',"
                " no part begins or ends with _, 'json' is the metadata's and 'npy' the arrays'"
            )
        if not isinstance(data, bytes):
            raise ValueError(f"sample {key!r}: {extension} is {type(data).__name__}, allowed are bytes")
        fields[extension] = data
    if any(len(data) >= _LARGEST for data in fields.values()):
        raise ValueError(f"sample {key!r} has a member of 8 GiB or more, which a tar header cannot tell; split it")
    return fields


def tar_bytes(key: str, fields: Mapping[str, bytes]) -> memoryview:
    """A sample's members as webdataset writes them. A writer a sample: only so its bytes are at hand for the crc32."""
    from webdataset import TarWriter  # a reader has no use for it, nor for the torch that it imports where there is one

    stream = io.BytesIO()
    # mtime: int. TarWriter does not hand its `format` on, and for a float tarfile adds a header with it.
    with TarWriter(stream, user="", group="", mode=0o444, mtime=0, encoder=False) as writer:
        writer.tarstream.format = tarfile.USTAR_FORMAT  # the same bytes for our short names, in half the time
        writer.write({"__key__": key, **fields})
        end = writer.tarstream.offset
    return stream.getbuffer()[:end]


def decode(key: str, data: bytearray) -> Sample:
    """A sample from its part of the tar. Raises ValueError, TypeError or IndexError if that is not what it is."""
    sample = Sample(key, {}, {}, {})
    at = 0
    # tarfile would do, and takes longer than all else: of a member's header (USTAR) its name, which ends with a zero
    # byte, and its size, eleven octal digits at byte 124, are all that is needed; contents are filled up to 512 bytes.
    while at < len(data):
        name, _, field = data[at : data.index(0, at)].decode("ascii").partition(".")
        if name != key:
            raise ValueError(f"the tar has {name!r} there")
        start, size = at + HEADER, int(data[at + 124 : at + 135], 8)
        if field == "json":
            sample.meta.update(json.loads(data[start : start + size].decode()))
        elif field.endswith(".npy"):  # ten bytes, of which the last two are the length of the header that follows
            head = start + 10 + int.from_bytes(data[start + 8 : start + 10], "little")
            dtype, shape = _array_header(bytes(data[start:head]))
            sample.arrays[field[:-4]] = np.ndarray(shape, dtype, data, head)
        else:
            sample.files[field] = bytes(data[start : start + size])
        at = start + size + -size % HEADER
    return sample


@lru_cache(maxsize=4096)  # numpy parses a header as Python source: slower than all else here, and few differ
def _array_header(header: bytes) -> tuple[np.dtype, tuple[int, ...]]:
    stream = io.BytesIO(header)
    if (version := np.lib.format.read_magic(stream)) != (1, 0):
        raise ValueError(f"an array of npy version {version}, not (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran or dtype.name not in _DTYPES:
        raise ValueError(f"an array of {dtype}{' in Fortran order' if fortran else ''}, which no writer of ours writes")
    return dtype, shape
