"""Licences by their SPDX identifier: those that weights and data usually have."""

from __future__ import annotations

import re

from sits_catalog.documents import did_you_mean

__all__ = ["LICENCES", "check_licence", "hub_licence"]

_FORMS = ("only", "or-later")
LICENCES = (
    *("0BSD", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
    *("CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-4.0", "CC0-1.0"),
    *("CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "EUPL-1.2", "GPL-2.0-only"),
    *("GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "ISC", "LGPL-3.0-only", "LGPL-3.0-or-later", "MIT"),
    *("MPL-2.0", "ODC-By-1.0", "ODbL-1.0", "OGL-UK-3.0", "PDDL-1.0", "Unlicense", "Zlib", "etalab-2.0"),
)
"""See https://spdx.org/licenses/."""
_OF_HUB = (
    *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0"),
    *("CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-4.0", "CC0-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0"),
    *("CDLA-Sharing-1.0", "ISC", "MIT", "MPL-2.0", "Unlicense", "Zlib", "etalab-2.0"),
)
"""Those that the Hugging Face hub calls the same, in small letters (https://huggingface.co/docs/hub/repositories-licenses)."""
_HUB_NAMES = {
    **{f"{name}-{form}": name.lower() for name in ("AGPL-3.0", "GPL-2.0", "GPL-3.0", "LGPL-3.0") for form in _FORMS},
    **{"ODC-By-1.0": "odc-by", "ODbL-1.0": "odbl", "PDDL-1.0": "pddl"},
    **{name: name.lower() for name in _OF_HUB},
}
_OWN = re.compile(r"LicenseRef-[A-Za-z0-9.-]+")
"""How SPDX names what is not on its list (SPDX specification 2.3, annex D)."""


def check_licence(text: str) -> str:
    """The identifier. Raises ValueError where it is none that is known here."""
    if text in LICENCES or _OWN.fullmatch(text):
        return text
    raise ValueError(
        f"no SPDX identifier of a licence is {text!r}{did_you_mean(text, LICENCES)}; give one such as Apache-2.0 or "
        "CC-BY-4.0, or LicenseRef-NAME for a licence of your own"
    )


def hub_licence(licence: str) -> str | None:
    """What the Hugging Face hub calls a licence; None where it knows it only as "other".

    >>> hub_licence("GPL-3.0-or-later"), hub_licence("EUPL-1.2")
    ('gpl-3.0', None)
    """
    return _HUB_NAMES.get(licence)
