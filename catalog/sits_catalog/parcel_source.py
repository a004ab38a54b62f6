"""A parcel source: where agricultural parcels are read from and what its columns mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

__all__ = ["NationalSource", "ParcelEdition", "ParcelSource"]

_ARCHIVES = (".zip", ".7z", ".7z.001", ".rar")


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

    def fetched_path(self) -> str:
        """The path; FileNotFoundError says what to do about a shipped source that was not fetched yet."""
        if self.path is not None:
            return self.path
        raise FileNotFoundError(
            f"parcels of {self.source!r}, {self.year}, were not fetched: fetch them with `sits-catalog parcels fetch "
            f"{self.source} --year {self.year}`, or name a file of yours with --parcels FILE or as `path` under "
            "`parcels`"
        )


@dataclass(frozen=True, kw_only=True)
class ParcelEdition:
    """One year of a national source: where it is published, and what differs from the other years."""

    year: int
    addresses: tuple[str, ...]
    """Where the provider offers it; several where one archive comes in parts."""
    sha256: tuple[str, ...] = ()
    """Of what lies at each address, where that is known and does not change."""
    files: tuple[str, ...] = ()
    """Names of the fetched files, where the addresses end in none."""
    member: str | None = None
    """File inside of the archive; this and the fields below are given where they differ from the source's, and an
    empty text says that there is none that year."""
    layer: str | None = None
    id: str | None = None
    code: str | None = None
    name: str | None = None
    crs: str | None = None
    encoding: str | None = None
    mapping: str | None = None
    licence: str | None = None
    attribution: str | None = None

    def __post_init__(self) -> None:
        for key, values in (("sha256", self.sha256), ("files", self.files)):
            if values and len(values) != len(self.addresses):
                raise ValueError(
                    f"edition {self.year} has {len(self.addresses)} addresses and {len(values)} {key}; "
                    "give one for each address, or none"
                )

    @property
    def file_names(self) -> tuple[str, ...]:
        """What each fetched file is called: as in `files`, or as its address ends."""
        return self.files or tuple(unquote(PurePosixPath(urlsplit(text).path).name) for text in self.addresses)


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
    converter_years: tuple[int, ...] = ()
    """Years that the converter is known to make; asked for others it may make another one than it was asked for."""
    notes: str | None = None
    """What a user should know before they rely on it."""
    editions: tuple[ParcelEdition, ...] = ()
    """Empty: a convention of columns that files of any year follow, with a path of the user's."""

    def __post_init__(self) -> None:
        if (self.converter is None) != (not self.converter_years):
            raise ValueError(
                f"parcel source {self.id!r} should have both `converter` and `converter_years`, or neither; got "
                f"{self.converter} and {list(self.converter_years)}"
            )

    def edition(self, year: int | None) -> ParcelEdition:
        """The edition of a year; ValueError names the years there are."""
        for edition in self.editions:
            if edition.year == year:
                return edition
        if not self.editions:
            raise ValueError(
                f"parcel source {self.id!r} has no addresses to fetch from: name a file of yours with --parcels FILE "
                "or as `path` under `parcels`"
            )
        years = ", ".join(str(edition.year) for edition in self.editions)
        asked = "no year was given" if year is None else f"not of {year}"
        raise ValueError(f"parcel source {self.id!r} has editions of {years}; {asked}")

    def parcels(self, year: int | None, path: str | None) -> ParcelSource:
        """The edition of a year as a parcel source that reads the file at `path`; None: it was not fetched yet.

        A file of a year that is not among the editions is taken to have the columns of the source. Without a path,
        ValueError names the years there are.
        """
        if path is None:
            self.edition(year)
        own = self._differing(year)
        member = self.parcels_member(year)
        return ParcelSource(
            path=path,
            member=None if path is not None and not path.lower().endswith(_ARCHIVES) else member,
            layer=_own(own.layer, self.layer),
            id=_own(own.id, self.id_column),
            code=_own(own.code, self.code_column),
            name=_own(own.name, self.name_column),
            code_pattern=self.code_pattern,
            crs=_own(own.crs, self.crs),
            encoding=_own(own.encoding, self.encoding),
            labelled_area=self.labelled_area,
            source=self.id,
            year=year,
            licence=_own(own.licence, self.licence),
            attribution=_own(own.attribution, self.attribution),
        )

    def mapping_of(self, year: int | None) -> str | None:
        """Address of the table from the codes of a year to HCAT."""
        return _own(self._differing(year).mapping, self.mapping)

    def parcels_member(self, year: int | None) -> str | None:
        """Which file of a year's archive holds the parcels, as a pattern."""
        return _own(self._differing(year).member, self.member)

    def _differing(self, year: int | None) -> ParcelEdition:
        """What a year has of its own; nothing for one that is not among the editions."""
        nothing = ParcelEdition(year=0, addresses=())
        return next((edition for edition in self.editions if edition.year == year), nothing)


def _own(edition: str | None, source: str | None) -> str | None:
    """What holds for an edition: its own word, or the source's where it has none."""
    return source if edition is None else edition or None
