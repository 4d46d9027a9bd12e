"""``sudo scripts/bench``: measures, prints tables, and saves JSON and picture in ``bench/results``.

Rules: only a full run (all peers, the core, at least three rounds) is saved as ``latest``; a quick
or partial one is saved as ``quick`` or ``partial``.
"""

from __future__ import annotations

import contextlib
import os
import sys

import click
from rich.console import Console

from bench import docs, report
from bench.host import ROOT
from bench.peers import PEERS
from bench.results import Results
from bench.run import CORE, Options, Run
from paraglider.errors import OperatorError, ParagliderError, as_root
from paraglider.lab.namespace import execute

RESULTS = ROOT / "bench" / "results"
PICTURE_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
ROUNDS_FOR_THE_RECORD = 3


def result_name(options: Options) -> str:
    """The name under which results with these options are saved."""
    if options.quick:
        return "quick"
    partial = options.only or options.rounds < ROUNDS_FOR_THE_RECORD
    return "partial" if partial else docs.RECORD


@click.command()
@click.option("--quick", is_flag=True, help="One short round, without the largest flow table.")
@click.option("--rounds", type=click.IntRange(1, 100), help="Rounds (default 3; quick: 1).")
@click.option("--only", metavar="NAME,…", help=f"Some of: {', '.join([*PEERS, CORE])}.")
@click.option(
    "--docs", "write_docs", is_flag=True, help="Measure nothing: put the record into the docs."
)
def bench(quick: bool, rounds: int | None, only: str | None, write_docs: bool) -> None:
    """Compare Paraglider with its peers in network namespaces of the bench's own."""
    if write_docs:
        docs.write(ROOT, RESULTS)
        return
    if os.geteuid() != 0:
        remedy = f"run it as root: {as_root('scripts/bench')}"
        raise OperatorError("the bench makes network namespaces, which needs root", remedy)
    names = tuple(only.split(",")) if only else ()
    for name in names:
        if name not in PEERS and name != CORE:
            raise OperatorError(
                f"there is no {name} to bench", f"choose from {', '.join([*PEERS, CORE])}"
            )
    options = Options(quick, rounds or (1 if quick else ROUNDS_FOR_THE_RECORD), names)
    console = Console(highlight=False)
    try:
        results = Run(options, console).run()
    except KeyboardInterrupt:
        console.print("Interrupted; everything that was built has been removed.")
        raise
    show(results, console)
    save(results, result_name(options), console)


def show(results: Results, console: Console) -> None:
    """Print every table."""
    # Not on a terminal, a table has its full width.
    wide = console if console.is_terminal else Console(highlight=False, width=220)
    for grid in report.all_grids(results):
        wide.print(grid.rich())
    for line in [*report.remarks(results), report.circumstances(results)]:
        wide.print(line, soft_wrap=True, markup=False)


def save(results: Results, name: str, console: Console) -> None:
    """Write ``name.json`` and ``name.png``, as files of whoever owns the directory."""
    document = RESULTS / f"{name}.json"
    picture = document.with_suffix(".png")
    document.write_text(results.to_json(), encoding="utf-8")
    written = [document]
    if PICTURE_PYTHON.exists():
        command = [str(PICTURE_PYTHON), "-m", "bench.picture", str(document), str(picture)]
        execute(["env", "-C", str(ROOT), *command], timeout=120)
        written.append(picture)
    else:
        console.print("No picture: matplotlib is not there (see scripts/bench).")
    owner = RESULTS.stat()
    for file in written:
        os.chown(file, owner.st_uid, owner.st_gid)
        console.print(f"Written: {file.relative_to(ROOT)}")


def main() -> None:
    """Run the command; print an operator's mistake in one line."""
    try:
        bench.main(standalone_mode=False, prog_name="scripts/bench")
    except ParagliderError as error:
        sys.exit(_complain(str(error), error.exit_code))
    except click.ClickException as error:
        sys.exit(_complain(error.format_message(), 1))
    except (KeyboardInterrupt, click.Abort):
        sys.exit(130)


def _complain(words: str, code: int) -> int:
    with contextlib.suppress(BrokenPipeError):
        sys.stderr.write(f"bench: {words}\n")
    return code


if __name__ == "__main__":
    main()
