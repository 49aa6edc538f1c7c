"""A converter's options as flags of `fwdata convert`: every field of its `Options` model, by name.

`--max-episodes-per-task 5` is `--set max_episodes_per_task=5`; booleans are `--recover` and `--no-recover`; several
values are separated by commas or given one by one. The command line is rewritten to `--set` before it is parsed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAliasType, Union, get_args, get_origin

from typer.core import TyperCommand

from fwdata.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from pydantic import BaseModel


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """`key=value` options, values read as YAML (`tasks=[a, b]`, `max=3`). UsageError names the one without `=`."""
    import yaml

    options: dict[str, Any] = {}
    for pair in pairs:
        key, mark, value = pair.partition("=")
        if not mark or not key.strip():
            raise UsageError(f"--set takes key=value, found {pair!r}")
        try:
            options[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {key}: {value!r} is not a valid value") from None
    return options


@dataclass(frozen=True)
class Flag:
    """One option of a converter, as a flag."""

    name: str
    """Field of the converter's options, such as `max_episodes`."""
    kind: Literal["bool", "text", "number", "yaml"]
    """What its text is read as; "yaml" for whatever is not one plain type."""
    many: bool
    """Whether it takes several values."""
    choices: tuple[str, ...]
    """Values that are allowed; () allows any."""
    default: Any
    """Value where the flag is absent."""
    about: str
    """The field's docstring on one line; "" where it has none."""

    def value(self, text: str) -> Any:
        """The option's value from its text. UsageError with what is allowed."""
        return [self._one(part.strip()) for part in text.split(",") if part.strip()] if self.many else self._one(text)

    def _one(self, text: str) -> Any:
        if self.choices and text not in self.choices:
            allowed = ", ".join(self.choices)
            raise UsageError(f"--{spelt(self.name)} must be one of {allowed}, found {text!r}{_close(text, self)}")
        if self.kind == "text":
            return text
        import yaml

        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UsageError(f"--{spelt(self.name)}: {text!r} is not a valid value") from None
        is_bool = isinstance(value, bool)
        if self.kind == "bool" and not is_bool:
            raise UsageError(f"--{spelt(self.name)} must be true or false, found {text!r}")
        if self.kind == "number" and (is_bool or not isinstance(value, int | float)):
            raise UsageError(f"--{spelt(self.name)} must be a number, found {text!r}")
        return value


def _close(text: str, flag: Flag) -> str:
    found = did_you_mean(text, flag.choices)
    return found if "did you mean" in found else ""


def spelt(name: str) -> str:
    """`max_episodes` as `max-episodes`."""
    return name.replace("_", "-")


def flags_of(options: type[BaseModel]) -> dict[str, Flag]:
    """The flags of an `Options` model, by field, each explained by the field's own docstring or description."""
    found = {}
    for name, field in options.model_fields.items():
        default = field.get_default(call_default_factory=True)
        found[name] = _flag(name, field.annotation, default, _sentence(field.description or ""))
    return found


def _sentence(text: str) -> str:
    """A field's docstring on one line, without the stop at its end."""
    return " ".join(text.split()).rstrip(".")


def _flag(name: str, annotation: Any, default: Any, about: str) -> Flag:
    kinds = [kind for kind in _members(annotation) if kind is not type(None)]
    kind, many = (kinds[0], False) if len(kinds) == 1 else (None, False)
    if get_origin(kind) in (tuple, list):
        inner = {member for arg in get_args(kind) if arg is not Ellipsis for member in _members(arg)}
        kinds = sorted(inner, key=repr)
        kind, many = (kinds[0] if len(kinds) == 1 else None), True
    if get_origin(kind) is Literal:
        return Flag(name, "text", many, tuple(map(str, get_args(kind))), default, about)
    names: dict[Any, Literal["bool", "text", "number"]] = {bool: "bool", str: "text", int: "number", float: "number"}
    if kind in names:
        return Flag(name, names[kind], many, (), default, about)
    return Flag(name, "yaml", False, (), default, about)


def _members(annotation: Any) -> list[Any]:
    """An annotation's alternatives, names of types resolved."""
    while isinstance(annotation, TypeAliasType) or get_origin(annotation) is Annotated:
        annotation = annotation.__value__ if isinstance(annotation, TypeAliasType) else get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [annotation]


class OptionsCommand(TyperCommand):
    """A command whose first argument names a source, and that takes the source's options as flags."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrite the source's flags, then parse as usual."""
        source = self._source(args)
        flags = _flags_of_source(source) if source else {}
        ctx.meta["flags"] = source, flags
        return super().parse_args(ctx, list(self._rewritten(args, source, flags)) if source else args)

    def _own(self) -> dict[str, bool]:
        """The command's own flags -> whether they take a value."""
        found = {"--help": False}
        for param in self.params:
            for spelling in (*param.opts, *param.secondary_opts):
                found[spelling] = not getattr(param, "is_flag", False)
        return found

    def _source(self, args: Sequence[str]) -> str | None:
        """The first argument that is no flag and no flag's value, where there is a converter of that name."""
        from fwdata.pipeline.registry import converter_names

        own, todo = self._own(), iter(args)
        for token in todo:
            if not token.startswith("-"):
                return token if token in converter_names() else None
            if own.get(token):
                next(todo, None)
        return None

    def _rewritten(self, args: Sequence[str], source: str, flags: dict[str, Flag]) -> Iterator[str]:
        own, values, todo = self._own(), dict[str, Any](), iter(args)
        for token in todo:
            name, given, text = token.partition("=")
            if not token.startswith("--") or token == "--" or name in own:
                yield token
                if own.get(name) and not given:
                    yield from [value for value in [next(todo, None)] if value is not None]
                continue
            key = name[2:].replace("-", "_")
            negated = key.removeprefix("no_")
            if key not in flags and negated in flags and flags[negated].kind == "bool" and not given:
                values[negated] = False
            elif key not in flags:
                known = [*own, *(f"--{spelt(n)}" for n in flags)]
                raise UsageError(f"fwdata convert {source} has no option {name}{did_you_mean(name, known)}")
            elif flags[key].kind == "bool" and not given and not flags[key].many:
                values[key] = True
            else:
                value = flags[key].value(text if given else _next(todo, name))
                values[key] = [*values.get(key, []), *value] if flags[key].many else value
        for key, value in values.items():
            yield from ("--set", f"{key}={json.dumps(value, ensure_ascii=False)}")

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The options of the source that `--help` was asked for, or where to find them."""
        from fwdata.pipeline.registry import converter_names

        source, flags = ctx.meta.get("flags", (None, {}))
        if source is None:
            formatter.write_paragraph()
            formatter.write_text(f"Each source has options of its own: fwdata convert {converter_names()[0]} --help")
            return
        with formatter.section(f"Options of {source}"):
            if flags:
                formatter.write_dl([(_usage(flag), _help(flag)) for flag in flags.values()])
            else:
                formatter.write_text("It declares none; --set key=value passes any.")


def _next(todo: Iterator[str], name: str) -> str:
    found = next(todo, None)
    if found is None:
        raise UsageError(f"{name} needs a value")
    return found


def _flags_of_source(source: str) -> dict[str, Flag]:
    from fwdata.pipeline.registry import options_model

    model = options_model(source)
    return flags_of(model) if model is not None else {}


def _usage(flag: Flag) -> str:
    if flag.kind == "bool":
        return f"--{spelt(flag.name)} / --no-{spelt(flag.name)}"
    what = "|".join(flag.choices) if flag.choices else {"text": "TEXT", "number": "NUMBER"}.get(flag.kind, "YAML")
    return f"--{spelt(flag.name)} {what}{',..' if flag.many else ''}"


def _help(flag: Flag) -> str:
    value = flag.default
    if value is None or value in ((), {}):
        return flag.about
    shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    return f"{flag.about} [default: {shown}]".strip()
