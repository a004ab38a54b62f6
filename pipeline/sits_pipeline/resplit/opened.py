"""A finished dataset of the profile `region`, opened for new splits: all that is needed comes out of the dataset."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import shapely
import yaml
from numpy.typing import NDArray

from sits_catalog.cube import VERSION, Split
from sits_catalog.documents import build, parse_document
from sits_catalog.region import Region
from sits_catalog.taxonomy import CropClass, Taxonomy
from sits_pipeline.folder import Folder
from sits_pipeline.journal import MERGED, is_being_built, read_journal
from sits_pipeline.parcels import Flag, ParcelTable
from sits_pipeline.plan import Zone, ZonePlan
from sits_pipeline.splits import SplitPlan
from sits_pipeline.store import CubeLayout, read_layout
from sits_pipeline.values import JsonObject, Parcels

__all__ = ["PARCELS", "Opened", "open_finished", "plain_table", "read_parcels_file"]

PARCELS = "parcels.parquet"

Table = Any  # pyarrow.Table; pyarrow has no type information and is slow to import


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A dataset as it stands."""

    folder: Folder
    layout: CubeLayout
    document: JsonObject
    """`config.yaml` as plain values."""
    plan_line: JsonObject
    """The journal's line of the build's plan."""
    stamps: dict[str, list[int | str]]
    """Size and SHA-256 of the files that no cell lists, as the journal has them."""
    table: Table
    """`parcels.parquet`."""

    @property
    def name(self) -> str:
        """The last part of where it is."""
        return (
            self.folder.path.absolute().name
            if self.folder.is_local
            else self.folder.location.rstrip("/").rpartition("/")[2]
        )

    @cached_property
    def region(self) -> Region:
        """The region it was built for."""
        text = yaml.safe_dump(self.document, sort_keys=False, allow_unicode=True)
        return build(Region, parse_document(text, f"{self.folder.location}/config.yaml"), hidden=["folder"])

    @cached_property
    def zone(self) -> Zone:
        """The cube's zone; of the region's part in it nothing is known but the grid."""
        clip = self.region.place.crs is None
        return Zone(name=self.name, geobox=self.layout.geobox, area=shapely.Polygon(), clip_to_strip=clip)

    @cached_property
    def parcels(self) -> Parcels:
        """The parcels in the order of their ids."""
        return Parcels(
            epsg=self.layout.epsg,
            parcel_id=self._column("parcel_id", np.uint32),
            source_row=np.arange(self.table.num_rows),
            crop_type=self._column("crop_type", np.uint16),
            geometry=np.asarray(shapely.from_wkb(self._column("geometry", object)), dtype=object).reshape(-1),
        )

    @cached_property
    def taxonomy(self) -> Taxonomy:
        """The classes of the cube, without the codes that make them."""
        return Taxonomy(id="cube", classes=tuple(CropClass(**row) for row in self.layout.classes))

    @cached_property
    def parcel_table(self) -> ParcelTable:
        """The table as the pipeline has it, as far as it is stored."""
        bits = {str(flag.name).lower(): int(flag) for flag in Flag}
        flags = [sum(bits[word] for word in words) for words in self.table["flags"].to_pylist()]
        texts = {name: self._column(name, object) for name in ("source_key", "source_code", "crop_name", "hcat_code")}
        return ParcelTable(
            parcels=self.parcels,
            **texts,
            flags=np.array(flags, np.uint8),
            taxonomy=self.taxonomy,
            unknown_codes={},
            dropped=(),
            notes=(),
        )

    @cached_property
    def n_pixels(self) -> NDArray[np.int64]:
        """Pixels that each parcel has won."""
        return self._column("n_pixels", np.int64)

    def zone_plan(self, splits: SplitPlan, config_sha256: str) -> ZonePlan:
        """A plan of this dataset with other splits, as far as splits matter: without dates."""
        return ZonePlan(
            zone=self.zone,
            bands=self.layout.bands,
            acquisitions=(),
            refusals=(),
            splits=splits,
            cell_px=int(self.layout.attributes["cells"]["side"]),
            config_sha256=config_sha256,
        )

    def with_split(self, split: NDArray[np.uint8]) -> Table:
        """`parcels.parquet` with this code of `Split` a parcel."""
        import pyarrow as pa

        words = {int(code): code.name.lower() for code in Split}
        column = pa.array([words[int(code)] for code in split], pa.string())
        return self.table.set_column(self.table.schema.get_field_index("split"), "split", column)

    def _column(self, name: str, dtype: Any) -> NDArray[Any]:
        values = self.table[name].to_numpy(zero_copy_only=False)
        return np.asarray(values, dtype=dtype)


def open_finished(folder: Folder) -> Opened:
    """A dataset whose build has ended, or one whose splits are being replaced.

    Raises FileNotFoundError where there is none, ValueError where it cannot get other splits.
    """
    layout = read_layout(folder)
    where = folder.location
    if layout.attributes.get("version") != VERSION:
        raise ValueError(
            f"{where} was written as sits-cube {layout.attributes.get('version')}; this program knows {VERSION}: "
            "use the matching release"
        )
    if not folder.exists(MERGED) or is_being_built(folder):
        raise ValueError(f"the build of {where} has not finished; run the same sits-build command to go on, then split")
    if not layout.has_labels:
        raise ValueError(f"{where} has no parcels, and splits are made by parcels; build it with --parcels FILE")
    plan_line, stamps = _of_journal(folder)
    opened = Opened(
        folder=folder,
        layout=layout,
        document=dict(yaml.safe_load(folder.read("config.yaml"))),
        plan_line=plan_line,
        stamps=stamps,
        table=read_parcels_file(folder),
    )
    if not plan_line.get("deciding"):
        raise ValueError(
            f"{where} was built by an earlier version, whose journal does not tell what decides its pixels; build it "
            "again to another --out"
        )
    if opened.region.labels.min_pixels:
        raise ValueError(
            f"labels: min_pixels has folded classes of {where} by its splits, so that other splits make other labels; "
            "name the splits in the region file and build it to another --out"
        )
    return opened


def _of_journal(folder: Folder) -> tuple[JsonObject, dict[str, list[int | str]]]:
    """The plan's line and the stamps of the merged journal."""
    plan: JsonObject = {}
    stamps: dict[str, list[int | str]] = {}
    for entry in read_journal(folder):
        if entry["kind"] == "plan" and not plan:
            plan = entry
        elif entry["kind"] == "files":
            stamps = entry["files"]
    return plan, stamps


def read_parcels_file(folder: Folder) -> Table:
    """`parcels.parquet` as a pyarrow Table that is written as the same bytes again."""
    import pyarrow.parquet as pq

    return plain_table(pq.read_table(io.BytesIO(folder.read(PARCELS))))


def plain_table(table: Table) -> Table:
    """A table that was read, as it was before it was written."""
    import pyarrow as pa

    # A reader notes the numbers of the file's columns in their schema, and a writer would store them.
    schema = pa.schema([_plain(field) for field in table.schema], metadata=table.schema.metadata)
    columns = [column.combine_chunks().cast(field.type) for column, field in zip(table.columns, schema, strict=True)]
    return pa.table(columns, schema=schema)


def _plain(field: Any) -> Any:
    """A pyarrow field without metadata, also inside of it, and with the usual name for the values of a list."""
    import pyarrow as pa

    kind = field.type
    if pa.types.is_struct(kind):
        kind = pa.struct([_plain(kind.field(index)) for index in range(kind.num_fields)])
    elif pa.types.is_list(kind):
        kind = pa.list_(_plain(kind.value_field).type)
    return pa.field(field.name, kind, nullable=field.nullable)
