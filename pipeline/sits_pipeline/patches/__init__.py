"""Location sets: many small places written as one dataset of the profile `patches`.

`build_locations(locations, patch_set, config, listener)` writes or takes up such a dataset:

    locations   sits_catalog.locations.read_locations(FILE)
    patch_set   PatchSet(id=..., season=..., imagery=...), or PatchSet.of(region, rule=PatchRule())
    returns     sits_pipeline.finish.Outcome; one that is not complete means exit code 3

`plan_locations` returns what would be built, `plan_in_words` and `plan_as_json` say it; `dataset_in_words` and
`dataset_as_json` tell of a dataset that is there.
"""

from sits_pipeline.patches.build import build_locations, plan_locations
from sits_pipeline.patches.rule import PatchRule, PatchSet
from sits_pipeline.patches.words import dataset_as_json, dataset_in_words, plan_as_json, plan_in_words

__all__ = [
    "PatchRule",
    "PatchSet",
    "build_locations",
    "dataset_as_json",
    "dataset_in_words",
    "plan_as_json",
    "plan_in_words",
    "plan_locations",
]
