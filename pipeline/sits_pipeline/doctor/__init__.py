"""`sits-build --doctor`: looks at everything that a build needs and says what is wrong and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from sits_catalog.region import Imagery
from sits_pipeline.config import BuildConfig
from sits_pipeline.doctor.finding import Finding, fine, wrong
from sits_pipeline.doctor.machine import check_cache, check_libraries, check_out, check_scheduler
from sits_pipeline.doctor.sentinel_hub import check_sentinel_hub
from sits_pipeline.doctor.services import check_api, check_clock, reach
from sits_pipeline.sources.providers import PROVIDERS
from sits_pipeline.sources.web import is_web
from sits_pipeline.values import JsonObject

__all__ = ["Finding", "examine", "finding_as_json", "finding_in_words"]

_WORDS = {"ok": "ok     ", "unset": "not set", "wrong": "WRONG  "}


def examine(chosen: Imagery | None, config: BuildConfig) -> Iterator[Finding]:
    """Findings as they are made: the machine, then the source that is chosen, or every known service for None.

    Nothing is built, and nothing that is written stays.
    """
    yield from check_libraries()
    yield check_out(config.out)
    yield check_cache(config)
    if config.scheduler is not None:
        yield check_scheduler(config.scheduler)
    if chosen is not None:
        yield from _check_source(chosen)
        return
    for name in PROVIDERS:
        yield from check_api(Imagery(source=name), chosen=False)  # type: ignore[arg-type]  # a provider is a source
    yield from check_sentinel_hub(Imagery(source="sentinel-hub"), chosen=False)


def _check_source(imagery: Imagery) -> Iterator[Finding]:
    if imagery.path is None and imagery.source in ("stac", "safe", "stac-api"):
        yield wrong(imagery.source, "nothing says where it is; set imagery.path, or --source-path")
    elif imagery.source == "sentinel-hub":
        yield from check_sentinel_hub(imagery, chosen=True)
    elif imagery.source in PROVIDERS or imagery.source == "stac-api":
        yield from check_api(imagery, chosen=True)
    elif imagery.source == "simulated":
        yield fine("simulated", "needs nothing: its scenes are made up on this machine")
    elif is_web(imagery.path or ""):
        found, answer = reach("stac", imagery.path or "")
        yield found
        if answer is not None:
            yield check_clock("stac", answer)
    else:
        yield _check_files(imagery)
    if imagery.fallback is not None:
        yield from _check_source(Imagery(source=imagery.fallback, path=imagery.fallback_path))


def _check_files(imagery: Imagery) -> Finding:
    """A catalogue or a folder of products on this machine."""
    path = Path(imagery.path or "")
    if not imagery.path or not path.exists():
        return wrong(imagery.source, f"there is nothing at {path}; check imagery.path, or --source-path")
    if imagery.source == "safe" and not any(path.glob("**/*.SAFE")):
        return wrong("safe", f"{path} holds no folder *.SAFE; give the folder that holds the products of ESA, unpacked")
    return fine(imagery.source, f"{path} is there")


def finding_in_words(finding: Finding) -> str:
    """One line."""
    return f"{_WORDS[finding.state]}  {finding.subject}: {finding.says}"


def finding_as_json(finding: Finding) -> JsonObject:
    """The same for machines."""
    return asdict(finding)
