"""From exceptions to one message on stderr and an exit code, for every command alike.

Lives here: ``begin``, ``run_command``, and ``exit_code`` for who goes on afterwards.
Rules: an operator's mistake never shows a traceback; a mistake of ours always does. Exit codes:
0 done, 1 the operator's mistake, 2 the platform refused, 70 a mistake of ours, 130 interrupted. A
service manager starts the daemon again after anything but 1. An output that cannot be written is
such an error too; one whose reader has gone (`| head`) ends with 1 and says nothing.
"""

from __future__ import annotations

import errno
import gc
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from paraglider.config.diagnostics import ConfigError
from paraglider.errors import ParagliderError, PlatformError
from paraglider.host.streams import finish, prepare

EXIT_MISTAKE = 1
EXIT_FAULT = 70  # EX_SOFTWARE of sysexits(3)
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def begin() -> None:
    """What a program begins with, before it imports what its command needs.

    A start makes some hundred thousand objects, all of which stay: to look through the new ones at
    every 700th, as Python does, is a twentieth of it. Workers, whose garbage counts, see to it
    themselves.
    """
    gc.set_threshold(50_000, 10, 10)


def run_command(
    command: click.Command, prog: str, arguments: Sequence[str] | None = None
) -> NoReturn:
    """Runs ``command`` under the name ``prog`` and ends the process with its exit code.

    ``arguments`` are those of the process when None.
    """
    prepare()
    code = exit_code(command, prog, arguments)
    error = finish()
    if error is not None:
        code = code or (EXIT_MISTAKE if error.errno == errno.EPIPE else PlatformError.exit_code)
        if error.errno != errno.EPIPE:
            print(f"{prog}: the output cannot be written: {error.strerror}", file=sys.stderr)
    sys.exit(code)


def exit_code(command: click.Command, prog: str, arguments: Sequence[str] | None) -> int:
    """Runs ``command`` as ``run_command`` does; its exit code, and its complaint on stderr."""
    args = list(arguments) if arguments is not None else None
    try:
        result = command.main(args=args, prog_name=prog, standalone_mode=False)
    except ConfigError as error:
        print(error, file=sys.stderr)  # its lines name the file themselves
        return error.exit_code
    except ParagliderError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return error.exit_code
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else prog
        print(f"{prog}: {_sentence(error)}; see `{path} --help`", file=sys.stderr)
        return EXIT_MISTAKE
    except click.ClickException as error:
        print(f"{prog}: {_sentence(error)}", file=sys.stderr)
        return EXIT_MISTAKE
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except Exception:  # noqa: BLE001 - whatever it is, it is no mistake of the operator
        traceback.print_exc()
        return EXIT_FAULT
    # A command that ends with ctx.exit(code) gives its code; one that returns has done its work.
    return result if isinstance(result, int) else 0


def _sentence(error: click.ClickException) -> str:
    return error.format_message().rstrip(".")
