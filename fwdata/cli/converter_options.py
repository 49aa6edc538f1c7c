"""A converter's options as options of `fwdata convert`: every field of its `Options` model, by name.

`--max-episodes-per-task 5` is `--set max_episodes_per_task=5`; booleans are `--recover` and `--no-recover`; several
values are separated by commas or given one by one. Their help is the docstring of the field.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAliasType, Union, get_args, get_origin

import typer
from typer.core import TyperCommand

from fwdata.console import usage_errors
from fwdata.errors import UsageError, did_you_mean, quoted

if TYPE_CHECKING:
    from pydantic import BaseModel


def parse_options(pairs: list[str]) -> dict[str, object]:
    """`key=value` options, values read as YAML (`tasks=[a, b]`, `max=3`). UsageError names the one without `=`."""
    import yaml

    options: dict[str, object] = {}
    for pair in pairs:
        key, mark, value = pair.partition("=")
        if not mark or not key.strip():
            raise UsageError(f"--set takes key=value, found {pair!r}")
        try:
            options[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(
                f"--set {key}: {value!r} is not a valid value; put quotes around a text with a colon or braces, within "
                f"those of the shell: --set '{key}=\"..\"'"
            ) from None
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
    """The field's docstring on one line; "" where it has none or nobody asked."""

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


def flags_of(options: type[BaseModel], explained: bool = True) -> dict[str, Flag]:
    """The flags of an `Options` model, by field, each explained by the field's own docstring or description.

    explained: False leaves docstrings out, which are read from the model's source.
    """
    from fwdata.field_docs import field_docs

    found, docs = {}, field_docs(options) if explained else {}
    for name, field in options.model_fields.items():
        default = field.get_default(call_default_factory=True)
        found[name] = _flag(name, field.annotation, default, _sentence(field.description or docs.get(name, "")))
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


PARAMETERS, VALUES, EXAMPLE = "fwdata.parameters", "fwdata.values", "fwdata.example"
"""Keys of a context's `meta`: the source's options as parameters, their values, and an example of the source."""


class OptionsCommand(TyperCommand):
    """A command whose first argument names a source, and that takes the source's options too."""

    about = "fwdata convert {source}"
    """How the command is written with a source."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command's options and those of its source; `chosen_options` returns the latter."""
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy starts no threads here: see `fork_command`
        first = self.first(args)
        source = self._source(first)
        model = _options_of(source) if source else None
        own = self._own()
        every = flags_of(model, explained="--help" in args) if model else {}
        flags = {name: flag for name, flag in every.items() if f"--{spelt(name)}" not in own}
        ctx.meta[PARAMETERS], ctx.meta[EXAMPLE] = _parameters(list(flags.values())), (source, self.example(model))
        wrong_usage, _ = usage_errors()
        try:
            rest = super().parse_args(ctx, [_switch(token, flags) for token in args])
        except wrong_usage as error:
            if first is not None and source is None:
                raise _no_source(first) from None
            raise _sentence_of(error, self.about, source, [*own, *(f"--{spelt(name)}" for name in flags)]) from None
        ctx.meta[VALUES] = _values(ctx.params, flags)
        return rest

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's parameters and those of its source."""
        return [*super().get_params(ctx), *ctx.meta.get(PARAMETERS, ())]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The command's options, then those of the source that `--help` was asked for, or where to find them."""
        from fwdata.pipeline.registry import converter_names

        parameters, (source, example) = ctx.meta.pop(PARAMETERS, []), ctx.meta.get(EXAMPLE, (None, ""))
        super().format_options(ctx, formatter)
        if source is None:
            formatter.write_paragraph()
            formatter.write_text(f"Each source has options of its own: fwdata convert {converter_names()[0]} --help")
            return
        with formatter.section(f"Options of {source}"):
            if parameters:
                formatter.write_dl([parameter.get_help_record(ctx) for parameter in parameters])
            else:
                formatter.write_text("It declares none; --set key=value passes any.")
        if example and example not in " ".join((self.help or "").split()):
            formatter.write_paragraph()
            formatter.write_text(example)

    def _own(self) -> dict[str, bool]:
        """The command's own flags -> whether they take a value."""
        found = {"--help": False}
        for param in self.params:
            for spelling in (*param.opts, *param.secondary_opts):
                found[spelling] = not getattr(param, "is_flag", False)
        return found

    def first(self, args: Sequence[str]) -> str | None:
        """The argument that names the source: the first that is neither a flag nor a flag's value."""
        own, todo = self._own(), iter(args)
        for token in todo:
            if not token.startswith("-"):
                return token
            if own.get(token):
                next(todo, None)
        return None

    def example(self, model: type[BaseModel] | None) -> str:
        """The paragraph `Example: ..` of an options model's docstring, on one line; "" where it has none."""
        paragraphs = inspect.cleandoc((model.__doc__ if model else None) or "").split("\n\n")
        return next((" ".join(text.split()) for text in paragraphs if text.startswith("Example:")), "")

    def _source(self, first: str | None) -> str | None:
        """The first argument, where there is a converter of that name."""
        from fwdata.pipeline.registry import has_converter

        return first if first is not None and has_converter(first) else None


class SourceOptionsCommand(OptionsCommand):
    """A command that takes the options of the source that `--source` names."""

    about = "fwdata doctor RAW --source {source}"

    def first(self, args: Sequence[str]) -> str | None:
        """See `OptionsCommand`: the value of --source."""
        given = [word for i, token in enumerate(args) if (word := _value_of("--source", token, args[i + 1 : i + 2]))]
        return given[-1] if given else None

    def example(self, model: type[BaseModel] | None) -> str:
        """None: a source's example is of `fwdata convert`."""
        return ""


def _value_of(flag: str, token: str, following: Sequence[str]) -> str:
    """The value that an argument gives a flag, itself or in the next one; empty where it is another."""
    name, _, value = token.partition("=")
    if name != flag:
        return ""
    return value or next(iter(following), "")


def chosen_options(context: typer.Context) -> dict[str, object]:
    """Options of the source that the command line gave as flags, by field."""
    return dict(context.meta.get(VALUES, {}))


def as_flags(values: Mapping[str, object]) -> list[str]:
    """Options of a source by field, as `fwdata convert` takes them: `--gripper-scale=auto`, `--no-recover`."""
    found = []
    for name, value in values.items():
        if isinstance(value, bool):
            found.append(f"--{'' if value else 'no-'}{spelt(name)}")
        else:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append(f"--{spelt(name)}={text}")
    return found


def _options_of(source: str) -> type[BaseModel] | None:
    from fwdata.pipeline.registry import options_model

    return options_model(source)


def _parameters(flags: Sequence[Flag]) -> list[Any]:
    """The flags as click parameters, made by typer from a signature; values stay text, see `Flag.value`."""

    def options() -> None:
        """Nothing: only its signature counts."""

    made = [
        inspect.Parameter(_name(flag), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(flag))
        for flag in flags
    ]
    vars(options)["__signature__"] = inspect.Signature(made)
    holder = typer.Typer(add_completion=False)
    holder.command()(options)
    return list(typer.main.get_command(holder).params)


def _annotation(flag: Flag) -> Any:
    """What typer makes an option from."""
    spelling, about = f"--{spelt(flag.name)}", _help(flag)
    if flag.kind == "bool" and not flag.many:
        return Annotated[bool | None, typer.Option(f"{spelling}/--no-{spelt(flag.name)}", help=about)]
    what = "|".join(flag.choices) if flag.choices else {"text": "TEXT", "number": "NUMBER"}.get(flag.kind, "YAML")
    option = typer.Option(spelling, help=about, metavar=f"{what}{',..' if flag.many else ''}")
    return Annotated[list[str] | None, option] if flag.many else Annotated[str | None, option]


def _name(flag: Flag) -> str:
    """Name of a flag's parameter, which no parameter of the command has."""
    return f"option_{flag.name}"


def _values(parameters: MutableMapping[str, Any], flags: dict[str, Flag]) -> dict[str, object]:
    """Values of the flags that were given, taken out of what the command is called with."""
    found: dict[str, object] = {}
    for name, flag in flags.items():
        given = parameters.pop(_name(flag), None)
        if isinstance(given, bool):
            found[name] = given
        elif flag.many and given:
            found[name] = [value for text in given for value in flag.value(text)]
        elif given is not None and not flag.many:
            found[name] = flag.value(given)
    return found


def _switch(token: str, flags: dict[str, Flag]) -> str:
    """`--recover=true` as `--recover`, which is what click knows; other arguments as they are."""
    name, given, text = token.partition("=")
    flag = flags.get(name[2:].replace("-", "_")) if given and name.startswith("--") else None
    if flag is None or flag.kind != "bool" or flag.many:
        return token
    return name if flag.value(text) else f"--no-{name[2:]}"


def _no_source(first: str) -> UsageError:
    """What to say of wrong usage whose first argument is no source's name, which is the mistake then."""
    from fwdata.pipeline.registry import converter_names

    if Path(first).exists():
        known = ", ".join(converter_names())
        return UsageError(
            f"{first} stands where the name of its source format belongs: fwdata convert SOURCE {quoted(first)} "
            f"--out STORE; known: {known}"
        )
    return UsageError(f"no converter {first!r}{did_you_mean(first, converter_names())}")


def _sentence_of(error: Exception, about: str, source: str | None, known: Sequence[str]) -> Exception:
    """A wrong option or a missing value as our own error; other errors as they are."""
    name, kind = getattr(error, "option_name", None), type(error).__name__
    if name is None or source is None:
        return error
    if kind == "NoSuchOption":
        from fwdata.pipeline.registry import sources_taking

        others = " and ".join(sources_taking(name.lstrip("-").replace("-", "_")))
        instead = f", it is one of source {others}" if others else did_you_mean(name, known)
        return UsageError(f"{about.format(source=source)} has no option {name}{instead}")
    return UsageError(f"{name} needs a value") if kind == "BadOptionUsage" else error


_NAMED = re.compile(
    r"\b(?P<set>set )?option (?P<name>[a-z_]+)(?: (?:=|(?(set)to|=)) (?P<value>[\w-]+))?(?: \(--[a-z-]+ TEXT\))?"
)
"""An option as converters name it in what they say: "option clock = shift", "set option clock to shift"."""
_PAIR = re.compile(r"\boptions (?P<name>[a-z_]+) and (?P<other>[a-z_]+)\b")


def with_flags(text: str) -> str:
    """What a converter says, with the flags of the command line in the place of its options: `--clock shift`."""
    if "option" not in text:
        return text
    from fwdata.pipeline.registry import is_option

    def flag(found: re.Match[str]) -> str:
        if not is_option(found["name"]):
            return found[0]  # "an option that takes them", or of a converter that declares none
        asked, value = "give " if found["set"] else "", f" {found['value']}" if found["value"] else ""
        return f"{asked}--{spelt(found['name'])}{value}"

    def flags(found: re.Match[str]) -> str:
        known = is_option(found["name"]) and is_option(found["other"])
        return f"--{spelt(found['name'])} and --{spelt(found['other'])}" if known else found[0]

    return _PAIR.sub(flags, _NAMED.sub(flag, text))


def _help(flag: Flag) -> str:
    value = flag.default
    if value is None or value in ((), {}, ""):
        return flag.about
    shown = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
    return f"{flag.about} [default: {shown}]".strip()
