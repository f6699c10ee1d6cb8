"""The summary table as Markdown, for a README."""

from certus.report import words
from certus.report.data import ReportData

HEAD = (
    "model",
    "method",
    "threat",
    "certified",
    "95% interval",
    "attack",
    "time per input",
    "kind",
    "n",
)


def markdown(data: ReportData) -> str:
    """One line per (model, method, norm), measured values only, a dash where there is none."""
    lines = [_line(HEAD), _line(["---"] * len(HEAD))]
    for row in data.summary:
        lines.append(
            _line(
                [
                    str(row["model"]),
                    str(row["method"]),
                    f"{words.norm(str(row['norm']))} {words.figure(row['eps'])}",
                    words.percent(row["certified"]),
                    words.interval(row),
                    words.attacked(row),
                    words.seconds(row.get("median_seconds")),
                    words.confidence(row["confidence"]),
                    str(row["n"]),
                ]
            )
        )
    return "\n".join(lines) + "\n"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    safe = (" ".join(cell.split()) for cell in cells)
    safe = (s.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;") for s in safe)
    return "| " + " | ".join(safe) + " |"
