"""Pictures of single inputs, their counterexamples and differences; tables for tabular inputs."""

import base64
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.image import imsave

from certus.core import ArgumentError
from certus.report.data import GalleryItem
from certus.report.words import DASH, confidence, figure, norm

SIDE = 112
CHANGES = 5
DOWN, NONE, UP = np.array([33, 102, 172.0]), np.array([247, 247, 247.0]), np.array([178, 72, 10.0])


def cards(items: Sequence[GalleryItem]) -> list[dict[str, Any]]:
    """What the page shows for each item: pictures as data URIs, texts, changed features."""
    return [_card(item) for item in items]


def uri(pixels: np.ndarray) -> str:
    """uint8 [H, W, 3] as a PNG data URI, enlarged by whole pixels (nearest) to about SIDE."""
    factor = max(1, SIDE // max(pixels.shape[:2]))
    large = pixels.repeat(factor, 0).repeat(factor, 1)
    buffer = io.BytesIO()
    unsigned: Any = {"Software": None}
    imsave(buffer, large, format="png", metadata=unsigned)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(image: Any, clip: tuple[float, float]) -> np.ndarray:
    """[C, H, W] with values in clip as uint8 [H, W, 3]; raises ArgumentError on NaN."""
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ArgumentError("a gallery image holds NaN or infinite values")
    scaled = np.clip((values - clip[0]) / (clip[1] - clip[0]), 0, 1) * 255
    return (
        np.broadcast_to(scaled, (3, *scaled.shape[1:])).transpose(1, 2, 0).round().astype(np.uint8)
    )


def difference(image: Any, other: Any) -> tuple[np.ndarray, float]:
    """Signed change, blue down and orange up, at full strength where it is largest; and that size.

    Of a colour image the channel that changed most is shown at each pixel.
    """
    change = np.asarray(other, dtype=np.float64) - np.asarray(image, dtype=np.float64)
    strongest = np.take_along_axis(change, np.abs(change).argmax(0)[None], 0)[0]
    size = float(np.abs(strongest).max())
    share = (strongest / size if size > 0 else strongest)[..., None]
    mixed = np.where(share < 0, NONE + (NONE - DOWN) * share, NONE + (UP - NONE) * share)
    return mixed.round().astype(np.uint8), size


def changes(item: GalleryItem) -> list[tuple[str, str, str, str]]:
    """The most changed features: name, value, value in the counterexample, change."""
    x = np.asarray(item.input, dtype=np.float64)
    z = np.asarray(item.counterexample, dtype=np.float64)
    order = np.argsort(-np.abs(z - x), kind="stable")[:CHANGES]
    return [
        (_name(item.features, int(i)), figure(x[i]), figure(z[i]), f"{z[i] - x[i]:+.3g}")
        for i in order
        if x[i] != z[i]
    ]


def _name(features: Sequence[str], i: int) -> str:
    return str(features[i]) if i < len(features) else f"feature {i}"


def _label(item: GalleryItem, which: int) -> str:
    if which < 0:
        return "abstains"
    return str(item.labels[which]) if which < len(item.labels) else str(which)


def _card(item: GalleryItem) -> dict[str, Any]:
    facts = [("label", _label(item, item.label)), ("prediction", _label(item, item.prediction))]
    if math.isfinite(item.radius):
        facts.append((f"{norm(item.norm)} radius".strip(), figure(item.radius)))
    if item.eps is not None:
        facts.append(("tested eps", f"{norm(item.norm)} {figure(item.eps)}".strip()))
    facts.append(("method", item.method))
    if item.model:
        facts.append(("model", item.model))
    if item.confidence != 1.0:
        facts.append(("confidence", confidence(item.confidence)))
    card: dict[str, Any] = {"index": item.index, "verdict": item.verdict, "facts": facts}
    if np.ndim(item.input) == 3:
        return card | {"pictures": _pictures(item)}
    return card | {"changes": changes(item) if item.counterexample is not None else []}


def _pictures(item: GalleryItem) -> list[tuple[str, str]]:
    shown = [("input", uri(picture(item.input, item.clip)))]
    if item.counterexample is not None:
        shown.append(("counter\u00adexample", uri(picture(item.counterexample, item.clip))))
        pixels, size = difference(item.input, item.counterexample)
        shown.append((f"change (largest {figure(size) if size else DASH})", uri(pixels)))
    return shown
