"""What a finished run leaves: the model, metrics.json and report.html. Called when the last step is done."""

from collections.abc import Mapping, Sequence

import torch
from rich.console import Console

from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate import Benchmark, Result, publish
from marginface.evaluate.embeddings import Embeddings, embed_images
from marginface.evaluate.measure import MOST_PIXELS, pixels, untrained
from marginface.evaluate.publish import split_results
from marginface.metrics.compare import Comparison, compare
from marginface.metrics.result import VerificationResult
from marginface.processes import alike, by_first, each
from marginface.report import print_searches, print_table
from marginface.terminal import print_line
from marginface.training.loop import Trainer
from marginface.training.monitor import read_metrics
from marginface.training.refit import refit_embedding
from marginface.training.run import Run
from marginface.training.samples import read_png


def finish(trainer: Trainer, run: Run, command: str, console: Console) -> None:
    """Saves the model, evaluates it beside what it is to be compared with, and writes both reports.

    That is raw pixels and the untrained network, or for fine-tuning the model it began with. With `patience` it is
    the best model that is kept, else the last one. Every process embeds a share of the images; the first does the rest.
    What fails is left out; InputError tells of it at the end, unless the run was resumed to get past it.
    """
    config = trainer.config
    model = each(lambda: _finished_model(trainer, run))
    model.notes["trained_by"] = command
    by_first(lambda: model.save(run.model, overwrite=True))  # whatever comes of the rest
    if config.train.refit:
        with trainer.survived("train.refit", always=True):
            _refit(trainer, model)
    rows = each(lambda: _rows(trainer, run, model))
    found: list[tuple[Benchmark, dict[str, Embeddings]]] = []
    for benchmark in trainer.benchmarks:
        with trainer.survived(benchmark.name, always=True):
            embeddings = {name: embed_images(one, benchmark.images) for name, one in rows.items()}
            found.append((benchmark, embeddings))
    if trainer.fabric.is_global_zero:
        _report(trainer, run, model, found, command, console)
    if trainer.failures and not trainer.resumed:
        told = "; ".join(dict.fromkeys(trainer.failures))
        raise alike(InputError(f"{told}; the model is in {run.model}, and --resume {run.folder} gets past what fails"))


def _report(
    trainer: Trainer,
    run: Run,
    model: Embedder,
    found: Sequence[tuple[Benchmark, Mapping[str, Embeddings]]],
    command: str,
    console: Console,
) -> None:
    config = trainer.config
    results: list[Result] = []
    comparisons: list[Comparison] = []
    measured: list[Benchmark] = []
    for benchmark, embeddings in found:
        with trainer.survived(benchmark.name, always=True, alone=True):
            own = [result for name, embedded in embeddings.items() for result in benchmark.score(embedded, name)]
            if config.init_from:
                pairs = [result for result in own if isinstance(result, VerificationResult)]
                if len(pairs) == 2:
                    comparisons.append(compare(pairs[0], pairs[1]))
            elif len(benchmark.images) <= MOST_PIXELS:
                size, template = model.preprocessing.size, model.preprocessing.template
                results += benchmark.score(pixels(benchmark.images, size, template), "pixels")
            results += own
            measured.append(benchmark)
    model.notes["results"] = [
        {name: value for name, value in result.to_json().items() if name != "roc"} for result in results
    ]
    model.save(run.model, overwrite=True)
    with trainer.survived("the report", always=True, alone=True):
        publish(
            results,
            measured,
            title=f"{run.folder.name}: {config.model.backbone}, {config.margin.name}",
            command=command,
            json_file=run.metrics_json,
            report_file=run.report,
            training=read_metrics(run.metrics_csv),
            samples=read_png(run.samples),
            comparisons=comparisons,
            overwrite=True,
        )
    print_line(f"model   {run.model}", console)
    if results:
        pairs, searches = split_results(results)
        if pairs:
            print_table(pairs, console)
        print_searches(searches, console)
        print_line(f"report  {run.report}", console)
    elif not config.data.val:
        print_line("no report: give benchmarks with --data.val", console)


def _finished_model(trainer: Trainer, run: Run) -> Embedder:
    best = trainer.config.train.patience and run.best.is_dir()
    return Embedder.load(run.best, trainer.embedder.device) if best else trainer.model


def _refit(trainer: Trainer, model: Embedder) -> None:
    """On each process; on GPUs they may differ in the last bits, and take the first one's."""
    each(lambda: refit_embedding(model.backbone, trainer.plain_batches, trainer.config.train.refit))
    if trainer.fabric.world_size > 1:
        for tensor in model.backbone.state_dict().values():
            torch.distributed.broadcast(tensor, 0)


def _rows(trainer: Trainer, run: Run, model: Embedder) -> dict[str, Embedder]:
    """All that are evaluated, by the name of their row, the finished one last."""
    if trainer.config.init_from:
        return {
            "before fine-tuning": Embedder.load(run.start, trainer.embedder.device),
            "after fine-tuning": model,
        }
    return {"untrained network": untrained(model, trainer.config.seed), "trained network": model}
