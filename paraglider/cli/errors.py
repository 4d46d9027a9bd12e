"""Maps exceptions to one message on stderr and an exit code, for all commands.

Lives here: ``tune_gc``, ``run_command``, and ``exit_code`` for callers that continue.
Rules: an operator's mistake never shows a traceback; a bug always does. Exit codes: 0 done, 1 the
operator's mistake, 2 the platform refused, 70 a bug, 130 interrupted. A service manager restarts
the daemon after every code except 1. If the output cannot be written the command fails; a closed
pipe (`| head`) exits with 1 and no message.
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


def tune_gc() -> None:
    """Raise the garbage collector's thresholds for start-up, before the command's imports.

    Start-up creates some 100,000 objects that all stay; collecting after every 700 of them, the
    default, takes 5 % of the time. Workers set their own thresholds.
    """
    gc.set_threshold(50_000, 10, 10)


def run_command(
    command: click.Command, prog: str, arguments: Sequence[str] | None = None
) -> NoReturn:
    """Run ``command`` under the name ``prog`` and exit the process with its exit code.

    ``arguments`` default to those of the process.
    """
    prepare()
    code = exit_code(command, prog, arguments)
    error = finish()
    if error is not None:
        code = code or (EXIT_MISTAKE if error.errno == errno.EPIPE else PlatformError.exit_code)
        if error.errno != errno.EPIPE:
            print(f"{prog}: cannot write the output: {error.strerror}", file=sys.stderr)
    sys.exit(code)


def exit_code(command: click.Command, prog: str, arguments: Sequence[str] | None) -> int:
    """Run ``command`` as ``run_command`` does; prints its error, returns its exit code."""
    args = list(arguments) if arguments is not None else None
    try:
        result = command.main(args=args, prog_name=prog, standalone_mode=False)
    except ConfigError as error:
        print(error, file=sys.stderr)  # its lines begin with the file's name
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
    except Exception:  # noqa: BLE001 - a bug, not an operator's mistake
        traceback.print_exc()
        return EXIT_FAULT
    # A command that calls ctx.exit(code) returns the code; any other return is success.
    return result if isinstance(result, int) else 0


def _sentence(error: click.ClickException) -> str:
    return error.format_message().rstrip(".")
