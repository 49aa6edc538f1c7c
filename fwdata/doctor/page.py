"""The page of a checkup: every finding with its number, episodes, command, and what it looks like."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fwdata.doctor.album import Album
from fwdata.doctor.exhibits import add_exhibit
from fwdata.doctor.findings import EXAMPLES, Checkup, DoctorFinding, FindingGroup
from fwdata.evidence.records import Severity
from fwdata.report import Report
from fwdata.report.place import page_place
from fwdata.report.preview import add_conventions
from fwdata.wording import counted

PAGE = "doctor.html"
"""Its name in a folder."""

MEANING: dict[Severity, str] = {
    "stop": "training on this is wasted",
    "warn": "look at it before training",
    "note": "unusual, and often right",
}


def write_page(found: Checkup, album: Album, out: Path) -> Path:
    """Write one self-contained page to `out`, a file NAME.html or a folder; returns its path.

    Plots and film strips of the first two findings of every kind, each of its first episode. UsageError where `out` is
    a file of another kind. Same findings, same bytes.
    """
    path = page_place(out, PAGE, "--html")
    counts = found.counts()
    report = Report(f"Doctor: {Path(found.where).name or found.where}")
    report.text(result(counts))
    report.facts(
        {
            found.kind: found.where,
            "examined": f"{found.episodes:,} episodes, {found.frames:,} frames",
            "images of": ", ".join(f"{name} of {n} episodes" for name, n in found.looked_at.items()),
            **{f"{severity} ({MEANING[severity]})": number for severity, number in counts.items()},
        }
    )
    add_findings(report, found, album)
    if found.verdicts:
        report.heading("Conventions, as measured")
        add_conventions(report, found.verdicts)
    path.parent.mkdir(parents=True, exist_ok=True)
    return report.write(path)


def result(counts: Mapping[Severity, int]) -> str:
    """What the findings mean for training, in one sentence. counts: findings by severity."""
    stop, warn, note = (f"{counts[name]:,} finding{'s' * (counts[name] != 1)}" for name in MEANING)
    if counts["stop"]:
        return f"Do not train on this yet: {stop} of severity stop."
    if counts["warn"]:
        return f"Nothing stops training; {warn} of severity warn to look at first."
    return f"Nothing stops training; {note} of severity note." if counts["note"] else "Nothing was found."


def add_findings(report: Report, found: Checkup, album: Album) -> None:
    """Every finding with its number, episodes, command and plots."""
    groups = found.groups()
    if groups:
        rows = [(g.severity, g.detector, len(g.findings), g.count or None) for g in groups]
        report.table(("severity", "detector", "findings", "episodes"), rows)
    for group in groups:
        _group(report, group, album)


def _group(report: Report, group: FindingGroup, album: Album) -> None:
    report.heading(f"{group.severity}: {group.detector}")
    for finding in group.findings[:EXAMPLES]:
        _finding(report, finding)
        add_exhibit(report, finding, album)
    rest = group.findings[EXAMPLES:]
    if rest:
        with report.folded(f"{len(rest)} more"):
            for finding in rest:
                _finding(report, finding)


def _finding(report: Report, finding: DoctorFinding) -> None:
    report.text(finding.sentence)
    if finding.command:
        report.code(finding.command)
    if finding.count > EXAMPLES:
        more = f", .. ({finding.count} in all)" if finding.count > len(finding.episodes) else ""
        with report.folded(f"{counted(finding.count, 'episode')}"):
            report.text(", ".join(finding.episodes) + more)
    elif finding.episodes:
        report.text(f"Episodes: {', '.join(finding.episodes)}")
