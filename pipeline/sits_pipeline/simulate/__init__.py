"""The archive writer: simulated scenes and parcels with the flaws of real ones, behind the demo and the tests."""

from sits_pipeline.simulate.archive import Archive, write_archive
from sits_pipeline.simulate.climates import CLIMATES

__all__ = ["CLIMATES", "Archive", "write_archive"]
