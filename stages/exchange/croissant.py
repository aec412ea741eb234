"""Croissant 1.0: what an exported dataset is, for machines: files with their digests, and the fields of its records.

Each file is a FileObject with its sha256. The records are a RecordSet over a FileSet: the Parquet files of the folder,
or the `.json` members of the tars. A field is a column: texts, numbers, lists of them (`repeated`), lists of structs
one level deep (`subField`), pictures and clips. What lies deeper is in the files and not among the fields: Croissant
1.0 has no way to say it.
Source: Croissant format specification 1.0 (http://mlcommons.org/croissant/1.0), its JSON-LD context.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from gristmill.stages.exchange.about import About, DataFile
from gristmill.stages.exchange.features import FILE, MEDIA_FEATURES

NAME = "croissant.json"
_RECORDS, _SET = "records", "data"
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(about: About) -> dict[str, Any]:
    """The metadata of an export, as JSON-LD."""
    m, published = about.manifest, about.published
    called = f"{about.records:,} {m.layout.called}"
    metadata: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": m.dataset,
        "description": f"Version {m.version} of {m.dataset}: {called}, made by gristmill. Its digest is {m.digest}.",
        "version": f"{m.version}.0.0",
        "identifier": m.digest,
        "citeAs": f"@misc{{{m.dataset}_v{m.version}, title={{{about.title}}}, note={{gristmill digest {m.digest}}}}}",
    }
    if isinstance(at := m.made.get("at"), str):
        metadata["datePublished"] = at
    if published.license:
        metadata["license"] = published.license
    if published.url:
        metadata["url"] = published.url
    if labels := [str(label) for label in about.languages]:
        metadata["inLanguage"] = labels
    metadata["distribution"] = [*map(_file_object, about.files), *_file_set(about)]
    if about.files:
        metadata["recordSet"] = [_record_set(about)]
    return metadata


def encoded(about: About) -> bytes:
    """The same as the bytes of a file."""
    return json.dumps(croissant(about), indent=1, ensure_ascii=False).encode() + b"\n"


def _file_object(file: DataFile) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": file.name,
        "name": file.name.rpartition("/")[2],
        "contentUrl": file.name,
        "contentSize": f"{file.bytes} B",
        "encodingFormat": "application/x-tar" if file.name.endswith(".tar") else "application/x-parquet",
        "sha256": file.sha256,
    }


def _file_set(about: About) -> Iterator[dict[str, Any]]:
    if not about.files:
        return
    files: dict[str, Any] = {"@type": "cr:FileSet", "@id": _SET, "name": _SET}
    if about.target == "webdataset":
        inside = [{"@id": file.name} for file in about.files]
        yield files | {"containedIn": inside, "encodingFormat": "application/json", "includes": "*.json"}
    else:
        yield files | {"encodingFormat": "application/x-parquet", "includes": "data/*.parquet"}


def _record_set(about: About) -> dict[str, Any]:
    records: dict[str, Any] = {"@type": "cr:RecordSet", "@id": _RECORDS, "name": _RECORDS}
    if about.schema is None:
        source = {"fileSet": {"@id": _SET}, "extract": {"fileProperty": "content"}}
        content = {"@type": "cr:Field", "@id": f"{_RECORDS}/json", "name": "json", "dataType": "sc:Text"}
        what = "What is known of the sample; its files stand beside it, by the same key."
        return records | {"field": [content | {"description": what, "source": source}]}
    fields = [field for column in about.schema for field in _fields(column)]
    if about.manifest.layout.kept_once and "id" in about.schema.names:
        records["key"] = {"@id": f"{_RECORDS}/id"}
    return records | {"field": fields}


def _fields(column: pa.Field) -> Iterator[dict[str, Any]]:
    """One field; none for a column that Croissant has no type for."""
    name, kind = column.name, column.type
    field: dict[str, Any] = {"@type": "cr:Field", "@id": f"{_RECORDS}/{name}", "name": name}
    if name in MEDIA_FEATURES and kind == pa.list_(FILE):
        medium = f"sc:{MEDIA_FEATURES[name]}Object"
        yield field | {"dataType": medium, "repeated": True, "source": _source(name, "bytes")}
        return
    repeated = pa.types.is_list(kind)
    item = kind.value_type if repeated else kind
    more: dict[str, Any] = {"repeated": True} if repeated else {}
    if (data_type := _data_type(item)) is not None:
        yield field | {"dataType": data_type, **more, "source": _source(name)}
    elif pa.types.is_struct(item) and (parts := list(_sub_fields(name, item))):
        yield field | more | {"subField": parts}


def _sub_fields(name: str, kind: pa.StructType) -> Iterator[dict[str, Any]]:
    for part in kind:
        if (data_type := _data_type(part.type)) is not None:
            about = {"@type": "cr:Field", "@id": f"{_RECORDS}/{name}/{part.name}", "name": part.name}
            yield about | {"dataType": data_type, "source": _source(name, part.name)}


def _source(column: str, part: str | None = None) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": _SET}, "extract": {"column": column}}
    return source | ({"transform": {"jsonPath": part}} if part else {})


def _data_type(kind: pa.DataType) -> str | None:
    """Of a value without parts; None for bytes and for what has parts."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "sc:Text"
    if pa.types.is_integer(kind):
        return "sc:Integer"
    if pa.types.is_floating(kind):
        return "sc:Float"
    return "sc:Boolean" if pa.types.is_boolean(kind) else None
