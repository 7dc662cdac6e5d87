"""`loom view`: serve a run's report with every sample, on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from loom_core.cli.exits import say


@click.command(short_help="Serve a run's report with every sample.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port; 0 takes a free one.  [default: 0]")
def view(run: Path, port: int) -> int:
    """Serve the report of RUN on 127.0.0.1 until Ctrl-C. Unlike report.html it shows every sample, and whole contexts,
    opened at their evidence. Works on a run that is being written: reload the page.
    """
    from loom_core.contract.errors import UsageError
    from loom_core.run.store import RunFolder
    from loom_report.render.live import Live, Server

    live = Live(RunFolder(run))
    try:
        server = Server(live, port)
    except OSError as error:
        raise UsageError("the port cannot be used", where=str(port), why=str(error), hint="leave --port out") from None
    say(f"{run.resolve().name}: {server.address} (Ctrl-C ends)")
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        say()
    finally:
        server.server_close()
    return 0
