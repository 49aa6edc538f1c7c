"""What verdicts of a data set say to users: a refusal, warnings, what is not verified, and one line per convention."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from fwdata.evidence.detectors.action import LATE
from fwdata.evidence.detectors.colour import ColourOrder
from fwdata.evidence.detectors.delay import StateDelay
from fwdata.evidence.records import DatasetVerdict, Severity, Verdict
from fwdata.evidence.registry import find_detector
from fwdata.wording import counted

CAUSES = ("unwritten_rows", "wrists_exchanged", "mounts_exchanged", "camera_quarter_turn")
"""Detectors named first: rows of zeros also look like another scale, exchanged cameras frozen, or out of step with the
arm they are taken for, and a quarter turn partly upside down or mirrored."""


_UP_DOWN, _SIDEWAYS, _QUARTER_TURN = (
    ("camera_up_down",),
    ("camera_left_right", "wrist_left_right"),
    "camera_quarter_turn",
)
OWN_COLUMNS = "--state "
"""How an option begins that takes a dataset's columns as it names them, which a named manifest would not."""

DIRECTIONS = (*_UP_DOWN, *_SIDEWAYS)
"""Detectors of the two directions of an image."""


FOLLOWS = {"start_pose": "state_unit", "camera_motion": "held_rows"}
"""Detector -> the one whose fault it shows too: first rows in degrees are far from those in rad, and images do not move
with a state that is held. It is not said of episodes of which the other is."""


def causes(verdicts: Sequence[DatasetVerdict]) -> list[DatasetVerdict]:
    """The verdicts without those that only follow from others, see `FOLLOWS`."""
    shown: dict[str, set[str]] = {}
    for verdict in verdicts:
        if verdict.against and verdict.action != "note":
            shown.setdefault(verdict.detector, set()).update(verdict.episodes)
    return [v for v in verdicts if not v.episodes or not shown.get(FOLLOWS.get(v.detector, ""), set()) >= {*v.episodes}]


def refusal(verdicts: Sequence[DatasetVerdict], accepted: Collection[str], options: Mapping[str, str]) -> str | None:
    """Why a conversion must not begin: the first contradiction that stops, and the names of others; None for none.

    accepted: detectors whose contradiction the user has accepted. options: detector -> option that would agree.
    """
    verdicts = causes(verdicts)
    stopping = [v for v in verdicts if v.action == "stop" and v.detector not in accepted]
    if not stopping:
        return None
    stopping.sort(key=_order)
    first, names = _cause(stopping[0], verdicts, accepted), list(dict.fromkeys(v.detector for v in stopping))
    others = [name for name in names if name != first.detector]
    more = f" (also contradicted: {', '.join(others)})" if others else ""
    accept = " ".join(f'--accept {name}="why"' for name in names)
    if first.verdict == "mixed":  # no option suits both kinds
        named = f", as of {', '.join(first.episodes[:3])}" if first.episodes else ""
        apart = f"convert both kinds apart (--exclude, --only{named})"
        turned = may_be_turned(first, verdicts)
        advice = f"{turned} where they are, else {apart}" if turned else f"{_agree(first)}: {apart}"
    else:
        left_open = unmeasured(first, verdicts)
        advice = agreement(first, suiting(first, verdicts, options)) + f" ({left_open})" * bool(left_open)
    same = [v for v in stopping if v.detector == first.detector and v is not stopping[0]]
    return f"{contradiction(first)}{_also(first, same)}{more}; {advice}, or {accept} keeps what was decided"


def beside_refusal(verdicts: Sequence[DatasetVerdict], accepted: Collection[str]) -> list[str]:
    """What else the data contradict beside what `refusal` names in full: one line per detector that stops or warns."""
    verdicts = causes(verdicts)
    stopping = [v for v in verdicts if v.action == "stop" and v.detector not in accepted]
    first = _cause(min(stopping, key=_order), verdicts, accepted).detector if stopping else ""
    return [line for name, line in _warnings(verdicts, accepted, ("stop", "warn")).items() if name != first]


def _order(verdict: DatasetVerdict) -> bool:
    """Key to sort what is named first first."""
    return verdict.detector not in CAUSES


def _cause(first: DatasetVerdict, verdicts: Sequence[DatasetVerdict], accepted: Collection[str]) -> DatasetVerdict:
    """The verdict to name first: that a camera is turned by 90 degrees, though it only warns, before a direction."""
    if first.detector not in DIRECTIONS or _QUARTER_TURN in accepted:
        return first
    turned = (v for v in verdicts if v.detector == _QUARTER_TURN and v.subject == first.subject)
    return next((v for v in turned if v.verdict in ("contradicted", "mixed")), first)


def _agree(verdict: DatasetVerdict) -> str:
    return f"the other {verdict.episodes_for} agree with it"


def may_be_turned(verdict: DatasetVerdict, verdicts: Sequence[DatasetVerdict]) -> str:
    """What to do where episodes that disagree about a camera may all be turned by 90 degrees; empty where not.

    Where motion to the right and up go together within an episode, either shows as the other one's in a turned image,
    with a sign of chance: only a direction that is confirmed, or a place that a camera matrix tells, denies it.
    """
    if verdict.verdict != "mixed" or verdict.detector not in (*DIRECTIONS, _QUARTER_TURN):
        return ""
    own = [v for v in verdicts if v.subject == verdict.subject and v.verdict == "confirmed"]
    if any(v.detector in DIRECTIONS or (v.detector == _QUARTER_TURN and v.value is not None) for v in own):
        return ""
    return (
        f"{_agree(verdict)}, which may be chance: camera {verdict.subject} may be turned by 90 degrees; look at its "
        "images, and turn them back in the recordings"
    )


def suiting(verdict: DatasetVerdict, verdicts: Sequence[DatasetVerdict], options: Mapping[str, str]) -> dict[str, str]:
    """The options that may agree with a verdict: where other subjects agree with what was decided, its own alone."""
    known = together(options, verdicts)
    own = f"{verdict.detector} {verdict.subject}"
    return {name: option for name, option in known.items() if name == own} if _torn(verdict, verdicts) else known


def _torn(verdict: DatasetVerdict, verdicts: Sequence[DatasetVerdict]) -> bool:
    """Whether another subject agrees with the same decision, so that the opposite would suit neither."""
    return bool(verdict.decided) and any(
        v.detector == verdict.detector and v.verdict == "confirmed" and v.decided == verdict.decided for v in verdicts
    )


def together(options: Mapping[str, str], verdicts: Iterable[Verdict | DatasetVerdict]) -> dict[str, str]:
    """The options, with that of "one+other subject" for both detectors where both are contradicted."""
    wrong = {(v.detector, v.subject) for v in verdicts if v.verdict == "contradicted"}
    found = dict(options)
    for key, option in options.items():
        names, _, subject = key.partition(" ")
        both = names.split("+")
        if len(both) > 1 and all((name, subject) in wrong for name in both):
            found |= {f"{name} {subject}": option for name in both}
    return found


def option_for(verdict: Verdict | DatasetVerdict, options: Mapping[str, str]) -> str:
    """The flag or manifest key that would agree with what a verdict measured; empty where there is none."""
    if verdict.measured.endswith(LATE):
        return ""
    keys = (f"{verdict.detector} {verdict.subject}", f"{verdict.detector} -> {verdict.measured}", verdict.detector)
    return next((options[key] for key in keys if key in options), "")


def advice(verdict: Verdict | DatasetVerdict) -> str:
    """What to do about a verdict that no option agrees with."""
    late = verdict.measured.endswith(LATE)
    return find_detector(StateDelay.name if late else verdict.detector).advice


def agreement(verdict: Verdict | DatasetVerdict, options: Mapping[str, str]) -> str:
    """What would agree with what a verdict measured, as an instruction."""
    option = option_for(verdict, options)
    if not option:
        return advice(verdict)
    if not option.startswith("--"):
        return f"`{option}` in a manifest (--manifest) would agree"
    return f"{option}{' without --manifest' * option.startswith(OWN_COLUMNS)} would agree"


def unmeasured(verdict: Verdict | DatasetVerdict, verdicts: Iterable[Verdict | DatasetVerdict]) -> str:
    """What stays open where a camera is turned for a verdict about one direction of its image: the other direction, of
    which there is no evidence. A camera that is turned by 180 degrees would only be mirrored. Empty where none is."""
    if verdict.detector not in DIRECTIONS or verdict.verdict not in ("contradicted", "mixed"):
        return ""
    other, name = (_UP_DOWN, "up/down") if verdict.detector in _SIDEWAYS else (_SIDEWAYS, "left/right")
    told = (v for v in verdicts if v.detector in other and v.subject == verdict.subject)
    if any(v.verdict != "no evidence" for v in told):
        return ""
    return (
        f"{name} of {verdict.subject} is not measured and may be wrong too: look at it in `fwdata preview` after that"
    )


def contradiction(verdict: DatasetVerdict) -> str:
    """What was decided, what was measured, and in how many episodes."""
    seen = verdict.episodes_for + verdict.against
    where = f"{verdict.against} of {counted(seen, 'episode')} with evidence" if seen else "the data"
    detector = find_detector(verdict.detector)
    lead = f"{detector.question}{subject(verdict)}: {detector.word} {verdict.decided!r}"
    return f"{lead}, but {where} measure {measured(verdict)}"


def measured(verdict: Verdict | DatasetVerdict) -> str:
    """What was measured, with its numbers where there are some."""
    return f"{verdict.measured!r} ({verdict.detail})" if verdict.detail else repr(verdict.measured)


def subject(verdict: DatasetVerdict) -> str:
    """The subject with a space before it, where there is one."""
    return f" {verdict.subject}" if verdict.subject else ""


def warnings(verdicts: Sequence[DatasetVerdict], accepted: Mapping[str, str]) -> list[str]:
    return list(_warnings(verdicts, accepted, ("warn",)).values())


def _warnings(
    verdicts: Sequence[DatasetVerdict],
    accepted: Collection[str] | Mapping[str, str],
    severities: tuple[Severity, ...],
) -> dict[str, str]:
    """Detector -> its line, of those of some severities and of accepted contradictions."""
    lines: dict[str, list[DatasetVerdict]] = {}
    for verdict in causes(verdicts):
        kept = verdict.detector in accepted and verdict.action != "note"
        if verdict.action in severities or kept:
            lines.setdefault(verdict.detector, []).append(verdict)
    reasons = accepted if isinstance(accepted, Mapping) else {}
    return {name: _warning(found, reasons.get(name)) for name, found in lines.items()}


def _warning(found: Sequence[DatasetVerdict], reason: str | None) -> str:
    first = found[0]
    listed = f"; episodes {', '.join(first.episodes[:2])}{', ..' if len(first.episodes) > 2 else ''}"
    accepted = f"; accepted: {reason}" if reason else ""
    return f"{contradiction(first)}{_also(first, found[1:])}{listed if first.episodes else ''}{accepted}"


MOST_ALSO = 4
"""Further subjects of a detector that a line names."""


def _also(first: DatasetVerdict, others: Sequence[DatasetVerdict]) -> str:
    """Further subjects of the same detector, with what was measured where that differs; empty for none."""
    named = [other for other in others if other.subject]
    shown = (f"{v.subject}{f' {v.measured!r}' * (v.measured != first.measured)}" for v in named[:MOST_ALSO])
    more = f" and {len(named) - MOST_ALSO} more" if len(named) > MOST_ALSO else ""
    return f"; also {', '.join(shown)}{more}" if named else ""


def not_verified(verdicts: Sequence[DatasetVerdict]) -> tuple[str, ...]:
    """One line per question without evidence on something that was decided: of what, of how many episodes, and the
    first one's reason."""
    found: dict[str, list[DatasetVerdict]] = {}
    for verdict in verdicts:
        if _untold(verdict):
            found.setdefault(find_detector(verdict.detector).question, []).append(verdict)
    return tuple(_untold_line(question, some) for question, some in found.items())


def count_not_verified(verdicts: Sequence[DatasetVerdict]) -> str:
    """The headline over the lines of `not_verified`; empty where everything that was decided has evidence."""
    decided = [verdict for verdict in verdicts if verdict.decided]
    untold = sum(map(_untold, decided))
    return f"not verified: {untold} of {counted(len(decided), 'convention')}" if untold else ""


def _untold(verdict: DatasetVerdict) -> bool:
    """Whether nothing, or of red and blue only a part of the episodes, tells what was decided."""
    partly = verdict.detector == ColourOrder.name and verdict.abstained
    return bool(verdict.decided) and bool(verdict.verdict == "no evidence" or partly)


def _untold_line(question: str, found: Sequence[DatasetVerdict]) -> str:
    """Subjects of one reason together, those of another one behind them."""
    reasons: dict[str, list[str]] = {}
    for verdict in found:
        total = verdict.episodes_for + verdict.against + verdict.abstained
        some = f" ({verdict.abstained} of {counted(total, 'episode')})"
        reasons.setdefault(f"{some}{f': {verdict.detail}' if verdict.detail else ''}", []).append(verdict.subject)
    of = [f"{', '.join(filter(None, subjects))}{why}" for why, subjects in reasons.items()]
    return f"{question}{' ' * bool(found[0].subject)}{'; '.join(of)}"


def episode_line(verdict: Verdict) -> str:
    """One line about a verdict of a single episode, as far as a store keeps it."""
    name = f"{find_detector(verdict.detector).question}{f' {verdict.subject}' if verdict.subject else ''}"
    value = f" ({verdict.value:.4g})" if verdict.value is not None else ""
    if verdict.verdict == "contradicted":
        return f"{name}: decided {verdict.decided!r}, measured {measured(verdict)} - contradicted"
    return f"{name}: {verdict.verdict}{value}{f', {verdict.detail}' if verdict.detail else ''}"


def cells(verdict: DatasetVerdict) -> tuple[str, str, str]:
    """Convention, what was decided, and the verdict with its number."""
    question = f"{find_detector(verdict.detector).question}{subject(verdict)}"
    if not verdict.decided:
        return question, "", f"measured {verdict.measured or 'nothing'}, nothing was decided"
    seen = verdict.episodes_for + verdict.against
    count = verdict.episodes_for if verdict.verdict == "confirmed" else verdict.against
    number = f" by {count} of {counted(seen, 'episode')}" if seen else ""
    exceptions = verdict.verdict == "confirmed" and verdict.against
    detail = f" ({verdict.detail})" if verdict.detail and not exceptions else ""
    measured = f", measured {verdict.measured}" if verdict.verdict in ("contradicted", "mixed") else ""
    return question, verdict.decided, f"{verdict.verdict}{number}{measured}{detail}"


def line(verdict: DatasetVerdict) -> str:
    """The same as one line for `fwdata inspect`."""
    question, decided, evidence = cells(verdict)
    return f"{question}: {f'{decided} - ' if decided else ''}{evidence}"
