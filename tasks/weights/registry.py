"""All families of published weights, and which of them weights are of."""

from __future__ import annotations

from ...tokenizers.errors import UserError, did_you_mean
from . import dinov2, huggingface_image, patchtst, timm, wav2vec2
from .family import Family, Source

#: In the order in which they are asked whether they know some weights.
FAMILIES: tuple[Family, ...] = (
    *dinov2.FAMILIES,
    *timm.FAMILIES,
    *huggingface_image.FAMILIES,
    *wav2vec2.FAMILIES,
    *patchtst.FAMILIES,
)


def family(name: str) -> Family:
    """The family of a name. Raises UserError naming the nearest."""
    for known in FAMILIES:
        if known.name == name:
            return known
    names = [known.name for known in FAMILIES]
    hint = did_you_mean(name, names) or f"; expected one of {', '.join(names)}"
    raise UserError(f"no family of weights is called {name!r}{hint}")


def recognise(source: Source) -> Family:
    """The family that weights are of. Raises UserError showing some of their names."""
    for known in FAMILIES:
        if known.knows(source):
            return known
    shown = ", ".join(list(source.state)[:3])
    names = ", ".join(known.name for known in FAMILIES)
    raise UserError(f"the weights of {source.name} ({shown}, …) are of no known family; those are {names}")
