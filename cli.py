"""The console script `triptych`: a light front that answers help, listings and mistakes at once.

Nothing heavy (torch, Lightning, jsonargparse, pandas) is imported before a command needs it.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from . import __version__
from .tasks.command import EXPECTED, SECTIONS, Command, Option, Options
from .tasks.commands import COMMANDS
from .tokenizers.errors import UserError, did_you_mean

NO_BREAK = "\N{NO-BREAK SPACE}"

# Threads that wait for each other in a busy loop stall as soon as another program wants a core: an epoch of
# `vision/vit` beside one busy process took 6 s, and 2 s since they sleep. Set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

PARTNERS = ("lightning", "jsonargparse")
"""Libraries whose own complaints about a config reach the user as one sentence."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status: 0, 2 for a mistake, 130 when interrupted."""
    try:
        dispatch(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, `head` say, has seen enough; keep Python's last flush quiet too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except SystemExit as stop:
        interrupted = isinstance(stop.__context__, KeyboardInterrupt)  # Lightning turns Ctrl-C into exit(1)
        return 130 if interrupted else stop.code if isinstance(stop.code, int) else bool(stop.code)
    except Exception as error:
        if not is_mistake(error):
            raise
        if os.environ.get("TRIPTYCH_DEBUG") == "1":
            traceback.print_exc()
        print(f"triptych: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def is_mistake(error: Exception) -> bool:
    """Whether an error is about what the user gave rather than about the code."""
    named_file = isinstance(error, OSError) and error.filename is not None
    partner = type(error).__module__.split(".")[0] in PARTNERS
    return isinstance(error, UserError) or named_file or partner


def dispatch(words: list[str]) -> None:
    """Answer help and version, or run the command that the first words name."""
    if not words or words[0] in ("--help", "-h", "help"):
        print(overview())
    elif words[0] in ("--version", "-V"):
        print(f"triptych {__version__}")
    else:
        command, rest = find_command(words)
        if command is None:
            print(group_help(words[0]))
        elif "--help" in rest or "-h" in rest:
            print(command_help(command))
        else:
            options, overrides = parse(command, rest)
            trusted = options.pop("trust", ())
            if trusted:
                from .tasks.trust import trust

                trust(trusted)
            command.run(options, overrides)


def find_command(words: list[str]) -> tuple[Command | None, list[str]]:
    """The command and the words after it; None for a group such as `evaluate` whose help is asked for."""
    commands = {command.name: command for command in COMMANDS}
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in commands:
            return commands[name], words[length:]
    parts = {name.split()[1] for name in commands if name.startswith(f"{words[0]} ")}
    if not parts:
        first = {name.split()[0] for name in commands}
        hint = did_you_mean(words[0], first) or "; `triptych --help` lists them"
        raise UserError(f"unknown command {words[0]!r}{hint}")
    if len(words) == 1 or words[1] in ("--help", "-h"):
        return None, []
    expected = " or ".join(sorted(parts))
    raise UserError(f"expected `triptych {words[0]}` to be followed by {expected}, but got {words[1]!r}")


def parse(command: Command, words: list[str]) -> tuple[Options, dict[str, str]]:
    """The options of a command and its dotted overrides, from `--key value` and `--key=value`."""
    by_flag = {option.flag: option for option in command.options if not option.positional}
    places = [option for option in command.options if option.positional]
    options: Options = {
        option.key: () if option.repeat else False if option.switch else option.default
        for option in command.options
    }
    overrides: dict[str, str] = {}
    rest = iter(words)
    latest: Option | None = None
    for word in rest:
        if not word.startswith("--"):
            place = latest if latest is not None and latest.repeat else next(iter(places), None)
            if place is None:
                raise UserError(f"`triptych {command.name}` did not expect {word!r}; options start with --")
            if place.repeat:
                options[place.key] = (*options[place.key], convert(place, word))
            else:
                options[places.pop(0).key] = word
            continue
        flag, equals, value = word.partition("=")
        latest = option = by_flag.get(flag)
        if option is not None and option.switch and not equals:
            options[option.key] = True
            continue
        text = value if equals else next(rest, None)
        if option is None and not is_override(flag, command):
            raise UserError(f"`triptych {command.name}` has no option {flag}{option_hint(flag, command)}")
        if option is not None and option.switch:
            raise UserError(f"the option {flag} takes no value, but got {text!r}")
        if text is None or (not equals and text.startswith("--")):
            raise UserError(f"the option {flag} needs a value{'' if option is None else f', {option.help}'}")
        if option is None:
            overrides[flag.removeprefix("--")] = text
        else:
            given = convert(option, text)
            options[option.key] = (*options[option.key], given) if option.repeat else given
    for option in command.options:
        if option.required and options[option.key] in (None, ()):
            raise UserError(f"`triptych {command.name}` needs {described(option)}: {option.help}")
    return options, overrides


def is_override(flag: str, command: Command) -> bool:
    """Whether a flag is a dotted key of a section that the command takes, or its `--seed`."""
    section, dot, _ = flag.removeprefix("--").partition(".")
    return section in command.sections and bool(dot) != (section == "seed")


def option_hint(flag: str, command: Command) -> str:
    """The nearest option of a command, or how a section of the config is written on the command line."""
    section, dot, rest = flag.removeprefix("--").partition(".")
    if section in command.sections:
        return f"; write --seed {rest}" if dot else f"; write --{section}.KEY VALUE"
    near_section = did_you_mean(f"--{section}", [f"--{name}" for name in command.sections])
    if dot and near_section:
        return near_section
    flags = [option.flag for option in command.options]
    return did_you_mean(flag, flags) or f"; its options are {', '.join(sorted(flags))}" * bool(flags)


def convert(option: Option, text: str) -> Any:
    """The text of an option as its kind of value."""
    try:
        return option.kind(text)
    except ValueError:
        raise UserError(f"expected {option.flag} to be {EXPECTED[option.kind]}, but got {text!r}") from None


def overview() -> str:
    """The help of `triptych` itself."""
    lines = ["One transformer encoder for images, time series and speech.", ""]
    lines += ["Usage: triptych COMMAND [OPTIONS]", "", "Commands:"]
    lines += columns([(command.name, command.summary) for command in COMMANDS])
    lines += ["", "`triptych COMMAND --help` shows a command's options and an example.", ""]
    lines += ["Start with `triptych demo`, or `triptych configs` and then `triptych fit --config NAME`."]
    return "\n".join(lines)


def group_help(group: str) -> str:
    """The help of the first word of commands of two words."""
    commands = [command for command in COMMANDS if command.name.startswith(f"{group} ")]
    rows = columns([(command.name, command.summary) for command in commands])
    return "\n".join([f"Usage: triptych {group} WHAT [OPTIONS]", "", *rows])


def command_help(command: Command) -> str:
    """The help of one command."""
    options = [*command.options, *(SECTIONS[section] for section in command.sections)]
    usage = [f"triptych {command.name}", *(usage_of(option) for option in options)]
    rows = [(described(option), help_of(option)) for option in options]
    lines = [f"{command.summary[0].upper()}{command.summary[1:]}.", ""]
    wrapped = wrap(f"Usage: {' '.join(usage)}", 100, subsequent_indent=" " * 9, break_on_hyphens=False)
    lines += [line.replace(NO_BREAK, " ") for line in wrapped]
    lines += ["", "Options:", *columns(rows)] if rows else []
    return "\n".join([*lines, "", "Example:", f"  {command.example}"])


def usage_of(option: Option) -> str:
    """One option in the usage line, which does not break inside it."""
    text = (described(option) + (" ..." if option.repeat else "")).replace(" ", NO_BREAK)
    return text if option.required else f"[{text}]"


def described(option: Option) -> str:
    return option.metavar if option.positional else f"{option.flag} {option.metavar}".rstrip()


def help_of(option: Option) -> str:
    return option.help if option.default is None else f"{option.help} (default {option.default})"


def columns(rows: list[tuple[str, str]]) -> list[str]:
    """Rows of a name and its text, indented and aligned, the texts wrapped at 100 characters."""
    width = max(len(name) for name, _ in rows)
    lines = []
    for name, text in rows:
        start = f"  {name:<{width}}  "
        lines += wrap(text, 100, initial_indent=start, subsequent_indent=" " * len(start))
    return lines


if __name__ == "__main__":
    sys.exit(main())
