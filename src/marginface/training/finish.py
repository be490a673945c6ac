"""What a finished run leaves: the model, metrics.json and report.html. Called when the last step is done."""

from rich.console import Console

from marginface.embedder import Embedder
from marginface.evaluate import baselines, measure, publish
from marginface.metrics.compare import compare
from marginface.report import print_table
from marginface.training.loop import Trainer
from marginface.training.monitor import read_metrics
from marginface.training.refit import refit_embedding
from marginface.training.run import Run
from marginface.training.samples import read_png


def finish(trainer: Trainer, run: Run, command: str, console: Console) -> None:
    """Saves the model, evaluates it beside what it is to be compared with, and writes both reports.

    That is raw pixels and the untrained network, or for fine-tuning the model it began with. With `patience` it is
    the best model that is kept, else the last one.
    """
    config, device = trainer.config, trainer.embedder.device
    model = Embedder.load(run.best, device) if config.train.patience else trainer.model
    before = Embedder.load(run.start, device) if config.init_from else None
    if config.train.refit:
        refit_embedding(model.backbone, trainer.plain_batches, len(trainer.loader.reader), config.train.refit)
    model.notes["trained_by"] = command
    results, comparisons = [], []
    for benchmark in trainer.benchmarks:
        if before is None:
            results += baselines(benchmark, model, config.seed)
            results.append(measure(benchmark, model, name="trained network"))
        else:
            earlier = measure(benchmark, before, name="before fine-tuning")
            later = measure(benchmark, model, name="after fine-tuning")
            results += [earlier, later]
            comparisons.append(compare(earlier, later))
    model.notes["results"] = [
        {name: value for name, value in result.to_json().items() if name != "roc"} for result in results
    ]
    model.save(run.model)
    publish(
        results,
        trainer.benchmarks,
        title=f"{run.folder.name}: {config.model.backbone}, {config.margin.name}",
        command=command,
        json_file=run.metrics_json,
        report_file=run.report,
        training=read_metrics(run.metrics_csv),
        samples=read_png(run.samples),
        comparisons=comparisons,
    )
    console.print(f"model   {run.model}", highlight=False)
    if results:
        print_table(results, console)
        console.print(f"report  {run.report}", highlight=False)
    else:
        console.print("no report: give benchmarks with --data.val", highlight=False)
