"""What a finished run leaves: the model, metrics.json and report.html. Called when the last step is done."""

import torch
from rich.console import Console

from marginface.embedder import Embedder
from marginface.evaluate import publish
from marginface.evaluate.embeddings import embed_images
from marginface.evaluate.measure import pixels, score_pairs, untrained
from marginface.metrics.compare import Comparison, compare
from marginface.metrics.result import VerificationResult
from marginface.processes import each
from marginface.report import print_table
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
    """
    config, benchmarks = trainer.config, trainer.benchmarks
    model, rows = each(lambda: _models(trainer, run))
    if config.train.refit and trainer.fabric.world_size > 1:  # each did it: on GPUs they may differ in the last bits
        for tensor in model.backbone.state_dict().values():
            torch.distributed.broadcast(tensor, 0)
    found = [{name: embed_images(one, benchmark.images) for name, one in rows.items()} for benchmark in benchmarks]
    if not trainer.fabric.is_global_zero:
        return
    model.notes["trained_by"] = command
    results: list[VerificationResult] = []
    comparisons: list[Comparison] = []
    for benchmark, embeddings in zip(benchmarks, found, strict=True):
        own = [score_pairs(benchmark, embedded, name) for name, embedded in embeddings.items()]
        if config.init_from:
            comparisons.append(compare(own[0], own[1]))
        else:
            results.append(score_pairs(benchmark, pixels(benchmark.images, model.preprocessing.size), "pixels"))
        results += own
    model.notes["results"] = [
        {name: value for name, value in result.to_json().items() if name != "roc"} for result in results
    ]
    model.save(run.model, overwrite=True)
    publish(
        results,
        benchmarks,
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
        print_table(results, console)
        print_line(f"report  {run.report}", console)
    else:
        print_line("no report: give benchmarks with --data.val", console)


def _models(trainer: Trainer, run: Run) -> tuple[Embedder, dict[str, Embedder]]:
    """The finished model, and all that are evaluated, by the name of their row, the finished one last."""
    config, device = trainer.config, trainer.embedder.device
    model = Embedder.load(run.best, device) if config.train.patience else trainer.model
    if config.train.refit:
        refit_embedding(model.backbone, trainer.plain_batches, len(trainer.loader.reader), config.train.refit)
    if config.init_from:
        return model, {"before fine-tuning": Embedder.load(run.start, device), "after fine-tuning": model}
    return model, {"untrained network": untrained(model, config.seed), "trained network": model}
