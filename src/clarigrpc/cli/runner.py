"""``clarigrpc runner``."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from clarigrpc.cli.options import client_command, host_option, open_client, port_option
from clarigrpc.cli.output import Output

_id_option = partial(click.option, metavar="ID")
_number_option = partial(click.option, type=click.IntRange(1, 1024), metavar="N")
_seconds_option = partial(
    click.option, type=click.FloatRange(min=0), show_default=True, metavar="SECONDS"
)


@client_command()
@click.argument("target", metavar="MODULE:NAME")
@_id_option("--runner", "runner_id", help="Id of the runner.  [env: CLARIFAI_RUNNER_ID]")
@_id_option(
    "--nodepool", "nodepool_id", help="Its nodepool.  [env: CLARIFAI_NODEPOOL_ID; default: none]"
)
@_id_option(
    "--cluster",
    "compute_cluster_id",
    help="Compute cluster of the nodepool.  [env: CLARIFAI_COMPUTE_CLUSTER_ID; default: none]",
)
@_id_option(
    "--model",
    "model_id",
    help="Model that the runner is created for if it does not exist; --app-id names the app of the "
    "model.  [default: the runner has to exist]",
)
@_id_option("--model-version", "version_id", help="Version of that model.  [default: any]")
@_number_option(
    "--concurrency",
    help="Number of items that run at once.  [default: 4, or twice --max-batch where that is more]",
)
@_number_option(
    "--max-batch",
    default=1,
    show_default=True,
    help="Most callers that one call of a batched method is for.",
)
@_seconds_option(
    "--max-delay",
    default=0.005,
    help="Most time that a caller of a batched method waits for others.",
)
@_seconds_option(
    "--grace", default=30.0, help="Time that items get to finish when the runner is to end."
)
@port_option(
    "--health-port",
    help="Port for GET /healthz and GET /readyz; 0 takes a free port.  [default: none]",
)
@host_option(
    "--health-host", help="Address to listen on for them; 0.0.0.0 for probes of Kubernetes."
)
def runner(output: Output, target: str, **options: Any) -> None:
    """Serve a model of your own to the service until Ctrl-C or SIGTERM.

    MODULE:NAME is a function or a class of a module or of a Python file. The runner asks the
    service for calls of the model and hands the outputs back; nothing has to be able to connect to
    it. At the end it finishes what runs and prints what it has done.

    \b
    Examples:
      clarigrpc runner --runner my-runner --model my-model my_models:Classifier
      clarigrpc runner --runner r1 --health-port 8080 my_model.py:Classifier
    """
    from clarigrpc._named_methods.signatures import signature_text
    from clarigrpc.cli.python_file import model_of_target
    from clarigrpc.runner import RunnerWorker, stopped_by_signals

    names = (
        *("runner_id", "nodepool_id", "compute_cluster_id", "model_id", "version_id"),
        *("concurrency", "max_batch", "max_delay", "grace", "health_port", "health_host"),
    )
    given = {name: options.pop(name) for name in names}
    settings: Any = {name: value for name, value in given.items() if value is not None}
    model = model_of_target(target)
    with open_client(**options) as client:
        try:
            worker = RunnerWorker(client, model, **settings)
        except TypeError as error:
            raise click.ClickException(str(error)) from error
        with stopped_by_signals(worker.request_stop, worker.end_grace), worker:
            for signature in worker.signatures:
                output.note(f"serving {signature_text(signature)}")
            if worker.health_port is not None:
                output.note(
                    f"health on http://{settings['health_host']}:{worker.health_port}/healthz"
                )
            output.note(f"runner {worker.runner_id} is ready, press Ctrl-C to stop")
            worker.wait()
            if running := worker.stats().running:
                output.note(
                    f"finishing {running} items in at most {settings['grace']:g} s; press Ctrl-C "
                    "again to give them back at once"
                )
    stats = worker.stats()
    counts = ("succeeded", "failed", "cancelled", "lost", "reconnects", "batches")
    output.fields({name: getattr(stats, name) for name in counts})
