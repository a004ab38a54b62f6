"""A parcel source: where agricultural parcels are read from and what its columns mean."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NationalSource", "ParcelEdition", "ParcelSource"]


@dataclass(frozen=True, kw_only=True)
class ParcelSource:
    """Parcels as a file or URL with the meaning of its columns; or a shipped source by name and year."""

    path: str | None = None
    """A vector file that GDAL opens, GeoParquet, or a URL of one; zipped or not."""
    member: str | None = None
    """File inside of the archive `path`, where there are several; `*` stands for any text."""
    layer: str | None = None
    id: str | None = None
    """Column with the source's own parcel key; without one, keys are content hashes."""
    code: str | None = None
    """Column with the crop code."""
    name: str | None = None
    """Column with the crop name."""
    code_pattern: str | None = None
    """Regular expression whose first group, found in the column `code`, is the crop code; None: all of its text."""
    crs: str | None = None
    """CRS for a file that states none; it never overrides a stated one."""
    encoding: str | None = None
    labelled_area: str = "parcels"
    """`region`: what no parcel covers is background; `parcels`: nothing is known between the parcels;
    or the path of a polygon file inside of which everything is declared."""
    source: str | None = None
    """Name of a shipped parcel source, from which the other fields are completed."""
    year: int | None = None
    licence: str | None = None
    attribution: str | None = None
    """Whom a map made of these parcels must name."""

    def __post_init__(self) -> None:
        if self.path is None and self.source is None:
            raise ValueError("parcels need a path, or the name of a shipped source under `source`")


@dataclass(frozen=True, kw_only=True)
class ParcelEdition:
    """One year of a national source: where it is published, and what differs from the other years."""

    year: int
    addresses: tuple[str, ...]
    """Where the provider offers it; several where one archive comes in parts."""
    sha256: tuple[str, ...] = ()
    """Of what lies at each address, where that is known and does not change."""
    member: str | None = None
    """File inside of the archive; this and the fields below are given where they differ from the source's."""
    layer: str | None = None
    id: str | None = None
    code: str | None = None
    name: str | None = None
    crs: str | None = None
    encoding: str | None = None
    mapping: str | None = None


@dataclass(frozen=True, kw_only=True)
class NationalSource:
    """A source of parcels that the catalog knows: columns, CRS, licence and the years it was published for."""

    id: str
    title: str
    provider: str
    home: str
    """Page of the provider."""
    licence: str
    attribution: str
    crs: str | None
    """None for a convention that files of any CRS follow."""
    encoding: str | None = None
    member: str | None = None
    layer: str | None = None
    id_column: str | None = None
    code_column: str | None = None
    code_pattern: str | None = None
    name_column: str | None = None
    labelled_area: str = "region"
    taxonomy: str | None = None
    """Shipped taxonomy that knows the codes."""
    mapping: str | None = None
    """Address of a table from the codes to HCAT, in the columns of EuroCrops."""
    converter: str | None = None
    """Name of the source among the converters of fiboa-cli."""
    notes: str | None = None
    """What a user should know before they rely on it."""
    editions: tuple[ParcelEdition, ...] = ()
    """Empty: a convention of columns that files of any year follow, with a path of the user's."""

    def edition(self, year: int | None) -> ParcelEdition:
        """The edition of a year; ValueError names the years there are."""
        for edition in self.editions:
            if edition.year == year:
                return edition
        years = ", ".join(str(edition.year) for edition in self.editions)
        asked = "no year was given" if year is None else f"not of {year}"
        raise ValueError(f"parcel source {self.id!r} has editions of {years}; {asked}")

    def parcels(self, year: int | None, path: str) -> ParcelSource:
        """The edition of a year as a parcel source that reads the file at `path`."""
        edition = self.edition(year)
        return ParcelSource(
            path=path,
            layer=edition.layer,
            id=edition.id or self.id_column,
            code=edition.code or self.code_column,
            name=self.name_column,
            crs=self.crs,
            labelled_area=self.labelled_area,
            source=self.id,
            year=edition.year,
            licence=self.licence,
            attribution=self.attribution,
        )
