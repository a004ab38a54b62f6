"""Files that hold no parcels but make GDAL open another file or address, which none of parcels may."""

from __future__ import annotations

__all__ = ["LOOKED_AT", "refuse_driver", "refuse_pointer"]

LOOKED_AT = 1 << 18
"""Bytes at a file's start that are searched; GDAL's drivers look at fewer to know their own."""
_MARKS = (b"<OGRVRTDataSource", b"<OGRWFSDataSource", b"<OGRCSWDataSource", b"<VRTDataset", b'"gdal_streamed_alg"')
"""Of virtual layers, services and pipelines, whatever the file is called; https://gdal.org/drivers/vector."""
_DRIVERS = ("OGR_VRT", "GDALG", "WFS", "CSW", "OAPIF", "OGCAPI", "HTTP", "PLSCENES", "NGW", "Carto", "Elasticsearch")


def refuse_pointer(path: str, start: bytes) -> None:
    """Raise ValueError where the first bytes of a file that `path` names are of one that points to others."""
    mark = next((mark for mark in _MARKS if mark in start), None)
    if mark is not None:
        _refuse(path, mark.decode().strip('<"'))


def refuse_driver(path: str, driver: str) -> None:
    """Raise ValueError where GDAL took a file, elsewhere perhaps, for one that points to others."""
    if driver in _DRIVERS:
        _refuse(path, driver)


def _refuse(path: str, kind: str) -> None:
    raise ValueError(
        f"{path} holds no parcels but points to another file or address ({kind}), which is not followed; name the file "
        "that holds the parcels"
    )
