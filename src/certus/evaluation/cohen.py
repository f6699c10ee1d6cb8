"""Logs in the format of Cohen, Rosenfeld and Kolter 2019: one line for each certified input."""

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from certus.core import ArgumentError, FileError
from certus.core.claim import CERTIFICATE, smoothed_by
from certus.core.files import lines
from certus.core.kinds import KIND, text, to_json
from certus.core.results import statistical
from certus.core.validate import count, positive, probability
from certus.evaluation.alpha import fitting, sampled
from certus.evaluation.claim import alpha_of, settled
from certus.evaluation.columns import COLUMNS
from certus.evaluation.metrics import correct, smoothed
from certus.evaluation.spelling import noise_of
from certus.evaluation.transcript import evidence_of
from certus.smoothing.noise import Gaussian, Noise
from certus.smoothing.rules import Fixed

Row = dict[str, Any]

FIELDS = ("idx", "label", "predict", "radius", "correct", "time")
LARGEST = 1 << 30  # bytes of a table of text
_LONGEST = 1e12  # seconds of one row
TRANSCRIPT = "evidence"
"""A seventh column of logs that Certus wrote: the transcript of each row, which says rule, n and alpha."""

SIZES = {
    ("imagenet", "test"): 50_000,
    ("imagenet", "train"): 1_281_167,
    ("cifar10", "test"): 10_000,
    ("cifar10", "train"): 50_000,
    ("mnist", "test"): 10_000,
    ("mnist", "train"): 60_000,
}
"""Inputs of the splits that logs take every n-th of, to tell where one ends early."""

_NAME = re.compile(
    r"(?P<data>.+?)__(?P<net>.+?)__noise_(?P<trained>\d*\.?\d+)__(?P<split>\w+?)__sigma_(?P<sigma>\d*\.?\d+)"
)
_CLOCK = re.compile(r"(?:(\d+) days?, )?(\d+):(\d\d):(\d\d(?:\.\d+)?)")


@dataclass(frozen=True, kw_only=True)
class LogSettings:
    """What a log does not say of itself.

    sigma: standard deviation of the noise; where the file's name says it, the two must agree. n0 and n:
    samples that chose the class and that bounded its probability. alpha: chance that a certificate is
    wrong; where None, the largest (weakest) of the usual ones that the radii fit. A log that Certus wrote
    says all this: n0 and n are not looked at there, and sigma and alpha must agree with it.
    """

    sigma: float | None = None
    n0: int = 100
    n: int = 100_000
    alpha: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no count, no standard deviation, no probability."""
        if count(self.n0, "n0") > count(self.n, "n"):
            raise ArgumentError(f"n0 ({self.n0}) must not exceed n ({self.n})")
        if self.sigma is not None:
            positive(self.sigma, "sigma")
        if self.alpha is not None:
            probability(self.alpha, "alpha")


def read_log(path: Path, settings: LogSettings) -> list[Row]:
    """Rows of a log: tab-separated columns FIELDS, predict -1 where it abstains, time in seconds or h:mm:ss.

    A name `dataset__arch__noise_TRAIN__split__sigma_CERTIFY.tsv` gives the row's data set, model and
    sigma; otherwise settings must give sigma. The noise is Gaussian, the rule taken as `Fixed`. Their
    evidence holds the radius as printed, also of inputs that are not predicted as labelled, and which
    usual alphas it fits. Where the log has the column TRANSCRIPT, nothing is taken for granted: noise,
    rule, samples and alpha are those of the transcripts, with which sigma and alpha of the settings must
    agree. Raises FileError (with the line) for a log that is damaged, that fits no usual alpha although
    none is stated, or whose sigma is not known.
    """
    named = _NAME.fullmatch(path.stem)
    sigma = float(named["sigma"]) if named else None
    found = _lines(path)
    try:
        if found and TRANSCRIPT in found[0]:
            records = [_transcribed(line, sigma, settings) for line in found]
        else:
            records = _assumed(found, sigma, settings)
    except FileError as error:
        raise FileError(f"{path}: {error}") from None
    if named:
        split = "" if named["split"] == "test" else f" ({named['split']})"
        model, data = f"{named['net']} noise {named['trained']}", named["data"] + split
    else:
        model, data = path.stem, "log"
    common = {"run": path.stem, "model": model, "data": data, "margin": math.nan, "norm": "l2"}
    common |= {"eps": None, "kind": CERTIFICATE, "threat": text({KIND: "l2", "eps": None})}
    rows = []
    for line, (own, record) in zip(found, records, strict=True):
        claim = {"method": f"smoothing sigma={own:g}", "confidence": statistical(record["alpha"])}
        claim |= {"subject": smoothed_by(Gaussian(own))}
        told = record | {"log": path.stem}
        rows.append(sampled(common | line | claim, told, line["prediction"], line["radius"]))
    return [settled({name: row[name] for name in COLUMNS}) for row in rows]


def write_log(rows: Sequence[Row], path: Path) -> None:
    """Write the certificates of one smoothing run (Gaussian noise, L2) as a log; see `read_log`.

    Radii are written in full (not to three digits as in the original, which may round up); that of an
    input predicted as another class than its label comes from its evidence, and is 0 without. The column
    TRANSCRIPT follows those of FIELDS, so that nobody takes one rule for another, but for rows read from
    a log without it: what was assumed there is not written as if it were known. Raises ArgumentError for
    rows that are something else, OSError where the file cannot be written.
    """
    if len({row["run"] for row in rows}) > 1:
        raise ArgumentError("a log holds one run; select the rows of one")
    records = [evidence_of(row) for row in rows]
    lines = [_line(row, record) for row, record in zip(rows, records, strict=True)]
    header = list(FIELDS)
    if not all("fits" in record for record in records):
        header.append(TRANSCRIPT)
        for line, row, record in zip(lines, rows, records, strict=True):
            line.append(json.dumps(record | {"alpha": alpha_of(row)}))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)


def ends_early(rows: Sequence[Row]) -> str:
    """One sentence where a log stops before the end of its split, "" where it does not or is unknown.

    It is known for the data sets of SIZES, whose inputs are taken at equal steps.
    """
    named = _NAME.fullmatch(str(evidence_of(rows[0]).get("log", ""))) if rows else None
    size = SIZES.get((named["data"], named["split"])) if named else None
    places = sorted(row["index"] for row in rows)
    steps = {b - a for a, b in pairwise(places)}
    if size is None or len(steps) != 1:
        return ""
    step = steps.pop()
    whole = len(range(places[0], size, step))
    if whole <= len(places):
        return ""
    return (
        f"ends at input {places[-1]} of {size}: {len(places)} rows, a whole log in steps of {step} "
        f"has {whole}"
    )


def _assumed(
    found: Sequence[Row], named: float | None, settings: LogSettings
) -> list[tuple[float, Row]]:
    """Sigma and evidence of each line of a log that says neither: the rule Fixed as the settings state it."""
    sigma = _sigma({"the name says": named, "stated is": settings.sigma})
    noise, rule = Gaussian(sigma), Fixed(n0=settings.n0, n=settings.n)
    radii = np.array([line["radius"] for line in found if line["prediction"] >= 0])
    fits = fitting(radii, noise, settings.n)
    alpha = settings.alpha if settings.alpha is not None else max(fits, default=None)
    if alpha is None:
        raise FileError(
            f"its radii fit no usual alpha with sigma {sigma:g} and n = {settings.n}"
            f"{_guess(radii, noise)}; state n (--n), or alpha too (--log-alpha)"
        )
    record = {"noise": to_json(noise), "rule": to_json(rule), "n0": settings.n0, "n": settings.n}
    record |= {"shared": False, "alpha": alpha, "fits": fits}
    return [(sigma, record)] * len(found)


def _transcribed(line: Row, named: float | None, settings: LogSettings) -> tuple[float, Row]:
    """Sigma and evidence of a line that has a transcript; one of an older row may say no more than alpha."""
    record, where = evidence_of(line), f"the evidence of input {line['index']}"
    noise, alpha = noise_of(record), record.get("alpha")
    if not isinstance(alpha, float) or not 0.0 < alpha < 1.0:
        raise FileError(f"{where} says no alpha")
    if settings.alpha not in (None, alpha):
        raise FileError(f"{where} says alpha {alpha:g}, stated is {settings.alpha:g}")
    if line["prediction"] not in (-1, record.get("class", line["prediction"])):
        raise FileError(f"{where} contradicts its prediction")
    if "noise" in record and not isinstance(noise, Gaussian):
        raise FileError(f"{where} is not about Gaussian noise")
    own = noise.sigma if isinstance(noise, Gaussian) else None
    return _sigma(
        {"the name says": named, f"{where} says": own, "stated is": settings.sigma}
    ), record


def _sigma(said: dict[str, float | None]) -> float:
    """The one sigma that is said; FileError where there is none, or two."""
    known = {who: sigma for who, sigma in said.items() if sigma is not None}
    if not known:
        raise FileError(
            "the name does not say sigma (dataset__arch__noise_TRAIN__split__sigma_S.tsv); "
            "state it with --sigma (in Python LogSettings(sigma=...))"
        )
    first, *others = known.items()
    for who, sigma in others:
        if sigma != first[1]:
            raise FileError(f"{first[0]} sigma {first[1]:g}, {who} {sigma:g}")
    return first[1]


def _guess(radii: np.ndarray, noise: Noise) -> str:
    """The usual numbers of samples with which the radii do fit an alpha."""
    for n in (1_000, 10_000, 100_000, 1_000_000):
        fits = fitting(radii, noise, n)
        if fits:
            return f", but alpha {max(fits):g} with n = {n}"
    return ""


def _lines(path: Path) -> list[Row]:
    found = []
    try:
        with lines(path, LARGEST) as file:
            reader = csv.DictReader(file, delimiter="\t", strict=True)
            header = reader.fieldnames or ()
            missing = [name for name in FIELDS if name not in header]
            if missing:
                commas = any("," in name for name in header)
                why = "; its columns must be separated by tabs, not commas" if commas else ""
                raise FileError(
                    f"{path}: is not a certification log, it lacks the column {missing[0]}{why}"
                )
            for record in reader:
                found.append(_entry(record, f"{path}, line {reader.line_num}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: is not a readable log ({error})") from error
    if len({entry["index"] for entry in found}) < len(found):
        raise FileError(f"{path}: an input occurs twice")
    return found


def _entry(record: dict[str, Any], where: str) -> Row:
    """index, label, prediction, radius and seconds of a line, checked against each other."""
    try:
        entry: Row = {
            "index": int(record["idx"]),
            "label": int(record["label"]),
            "prediction": int(record["predict"]),
            "radius": float(record["radius"]),
            "seconds": _seconds(str(record["time"])),
        }
        said = bool(("0", "1").index(str(record["correct"]).strip()))
    except (TypeError, ValueError):
        raise FileError(f"{where}: is not a line of a certification log") from None
    if TRANSCRIPT in record:
        entry[TRANSCRIPT] = record[TRANSCRIPT]
    values = record.values()
    odd = None in record or None in values or not 0 <= entry["seconds"] < _LONGEST
    if odd or entry["prediction"] < -1 or not 0 <= entry["radius"] < math.inf:
        raise FileError(f"{where}: is not a line of a certification log")
    if said != correct(entry):
        raise FileError(f"{where}: `correct` contradicts label and prediction")
    if entry["prediction"] < 0 and entry["radius"] > 0:
        raise FileError(f"{where}: an abstention has no radius")
    return entry


def _seconds(text: str) -> float:
    clock = _CLOCK.fullmatch(text.strip())
    if clock is None:
        return float(text)
    days, hours, minutes, seconds = clock.groups(default="0")
    return float(seconds) + 60 * (int(minutes) + 60 * (int(hours) + 24 * int(days)))


def _line(row: Row, record: Row) -> list[Any]:
    noise = noise_of(record)
    gaussian = (noise is None and not record) or isinstance(noise, Gaussian)
    if not smoothed(row) or row["eps"] is not None or row["norm"] != "l2" or not gaussian:
        raise ArgumentError(
            f"a log holds L2 certificates under Gaussian noise, not {row['method']} in {row['norm']}"
        )
    radius = row["radius"]
    if row["prediction"] >= 0 and not correct(row):
        radius = record.get("radius", 0.0)
        if "probability" in record and noise is not None:
            assert isinstance(noise, Noise)
            radius = float(noise.radius(record["probability"], record["runner_up"]))
    if not math.isfinite(radius):
        raise ArgumentError(f"input {row['index']} has no finite radius, which a log cannot say")
    if not 0 <= row["seconds"] < _LONGEST:
        raise ArgumentError(f"input {row['index']} has no time that a log can say")
    time = str(timedelta(seconds=row["seconds"]))
    numbers = [row["index"], row["label"], row["prediction"], repr(float(radius))]
    return [*numbers, int(correct(row)), time]
