"""`marginface evaluate`: models or embeddings, and benchmarks, to tables, JSON and a report."""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.numbers import Rate
from marginface.commands.progress import progress_bar
from marginface.commands.shared import add_allow_outside, add_overwrite, load_model, notice_alignment
from marginface.embedder import Embedder
from marginface.errors import InputError
from marginface.evaluate import UNDERSTOOD, Benchmark, open_benchmarks, publish
from marginface.evaluate.attributes import Attributes
from marginface.evaluate.embeddings import Embeddings
from marginface.evaluate.embeddings_file import EmbeddingsFile
from marginface.evaluate.judge import Judgement, Questions, judge
from marginface.evaluate.measure import pixels, untrained
from marginface.evaluate.publish import check_published, split_results, write_roc
from marginface.evaluate.saved import find_models
from marginface.evaluate.store import embed_to_disk, forget_embeddings, scratch_folder
from marginface.processes import by_first, each, of_torchrun, rank_and_size
from marginface.protocols.degrade import open_degrade
from marginface.protocols.ijb import identification_table, tpr_table
from marginface.protocols.ijb_meta import GALLERIES
from marginface.report import (
    checkpoints_sheet,
    figures_sheet,
    folds_sheet,
    group_sheet,
    print_searches,
    print_sheet,
    print_table,
)
from marginface.terminal import open_console, print_line


def options(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, nargs="?", default="", help="folder of a model, or of a run")
    parser.add_argument("--benchmark", type=str, nargs="+", required=True, help=UNDERSTOOD)
    parser.add_argument("--embeddings", type=str, default="", help="npz of anybody's embeddings, instead of a model")
    parser.add_argument("--all-checkpoints", type=str, default="", help="a run: all models in it, instead of one")
    parser.add_argument("--json", type=str, default="", help="file to write the results to, the scores beside it")
    parser.add_argument("--report", type=str, default="report.html", help="file to write the report to; '' = none")
    parser.add_argument("--roc-file", type=str, default="", help="file for OpenVINO's ROC, lines 'tpr fpr'")
    parser.add_argument("--flip", type=bool, default=True, help="add the embedding of the mirror image")
    parser.add_argument("--resize", type=bool, default=False, help="scale images of another size to the model's")
    parser.add_argument("--baselines", type=bool, default=False, help="also pixels and the untrained network")
    parser.add_argument(
        "--degrade", type=str, nargs="*", default=[], help="also on worse images: blur:3 jpeg:20 downscale:4"
    )
    parser.add_argument("--csv", type=str, default="", help="what is known about images or people, named in column 1")
    parser.add_argument("--by", type=str, nargs="*", default=[], help="columns of --csv: error rates of their groups")
    parser.add_argument(
        "--reject", type=str, nargs="*", default=[], help="error-versus-reject by 'norm' or columns of --csv"
    )
    parser.add_argument("--reject-fmr", type=Rate, default=1e-3, help="false match rate of those curves")
    parser.add_argument("--magface", type=bool, default=False, help="also MagFace's accuracy: angles, the mean removed")
    parser.add_argument("--scratch", type=str, default="", help="folder for embeddings while they are made")
    add_allow_outside(parser)
    add_overwrite(parser)


def run(options: Namespace, command: str) -> None:
    with of_torchrun():
        _evaluate(options, command)


def _evaluate(options: Namespace, command: str) -> None:
    """Of several processes all embed, and the first does the rest."""
    models, questions, benchmarks = each(lambda: _opened(options))
    scratch = Path(options.scratch) if options.scratch else scratch_folder()
    judged, used = Judgement(), []
    for benchmark in benchmarks:
        for name, embedded, folder in _rows(options, models, benchmark, scratch):
            by_first(partial(_judge, benchmark, name, embedded, questions, judged))
            used += [folder] if folder else []
    by_first(lambda: _publish(options, command, benchmarks, judged))
    if rank_and_size()[0] == 0:
        for folder in used:  # only now: an evaluation stopped before this goes on from them
            forget_embeddings(folder)
        _print(judged, of_a_run=bool(options.all_checkpoints))


def _opened(options: Namespace) -> tuple[dict[str, str], Questions, list[Benchmark]]:
    """All that can be refused before any work: names of the models, what is asked, and about what."""
    models = _models(options)
    reads = [*models, options.embeddings, options.all_checkpoints, options.csv, *options.benchmark]
    check_published(options.json, options.report, options.overwrite, reads, options.roc_file)
    attributes = Attributes(options.csv) if options.csv else None
    questions = Questions(options.by, options.reject, options.reject_fmr, attributes, options.magface)
    for spec in options.degrade:
        open_degrade(spec)
    return models, questions, open_benchmarks(options.benchmark, options.resize, options.allow_outside)


def _judge(
    benchmark: Benchmark, name: str, embedded: Callable[[], Embeddings], questions: Questions, judged: Judgement
) -> None:
    embeddings = embedded()
    judge(benchmark.score(embeddings, name), embeddings, questions, judged)


def _models(options: Namespace) -> dict[str, str]:
    """Return models and their names in the tables, the one under study last; none for embeddings.

    Raises InputError unless one source is named.
    """
    given = [word for word in (options.model, options.embeddings, options.all_checkpoints) if word]
    if len(given) != 1:
        raise InputError("give one of: a model's folder, --embeddings FILE.npz, --all-checkpoints RUN")
    if options.embeddings:
        if options.degrade or options.baselines:
            raise InputError("--degrade and --baselines need a network: give a model instead of --embeddings")
        return {}
    if options.all_checkpoints:
        return {str(path): name for path, name in find_models(options.all_checkpoints).items()}
    return {options.model: options.model}


def _rows(
    options: Namespace, models: dict[str, str], benchmark: Benchmark, scratch: Path
) -> Iterator[tuple[str, Callable[[], Embeddings], Path | None]]:
    """(row's name, embeddings, folder they lie in) in the order of the table: the model under study last."""
    if not models:
        yield options.embeddings, lambda: EmbeddingsFile(options.embeddings).of(benchmark.images), None
        return
    by_first(benchmark.images.check)
    loaded = each(lambda: load_model([*models][-1]))
    if options.baselines:
        yield (
            "pixels",
            partial(pixels, benchmark.images, loaded.preprocessing.size, loaded.preprocessing.template),
            None,
        )
        yield "untrained network", *_embed(untrained(loaded), benchmark, "", options, scratch)
    for path, name in models.items():
        model = each(partial(load_model, path))
        notice_alignment(benchmark.name, benchmark.images.alignment, model)
        for spec in (*options.degrade, ""):
            yield f"{name} {spec}".strip(), *_embed(model, benchmark, spec, options, scratch)


def _embed(
    model: Embedder, benchmark: Benchmark, spec: str, options: Namespace, scratch: Path
) -> tuple[Callable[[], Embeddings], Path]:
    """The benchmark's images, degraded as `spec` says; goes on where an earlier call was stopped."""
    degrade = open_degrade(spec) if spec else None
    images = dataclasses.replace(benchmark.images, degrade=degrade)
    with progress_bar(f"{benchmark.name} {spec}".strip(), "the same command goes on from there") as progress:
        found, folder = embed_to_disk(model, images, scratch, flip=options.flip, way=spec, progress=progress)
    return lambda: found, folder


def _publish(options: Namespace, command: str, benchmarks: list[Benchmark], judged: Judgement) -> None:
    if options.roc_file:
        write_roc(options.roc_file, judged.results, options.overwrite)
    studied = options.model or options.embeddings or options.all_checkpoints
    publish(
        judged.results,
        benchmarks,
        title=f"{studied} on {', '.join(benchmark.name for benchmark in benchmarks)}",
        command=command,
        json_file=options.json or None,
        report_file=options.report or None,
        groups=judged.groups,
        rejects=judged.rejects,
        overwrite=options.overwrite,
    )


def _print(judged: Judgement, of_a_run: bool) -> None:
    """of_a_run: the models are those of one run, and a table of theirs takes the place of one per benchmark."""
    console = open_console()
    pairs, searches = split_results(judged.results)
    if pairs and not of_a_run:
        print_table(pairs, console)
    sheets = [checkpoints_sheet(pairs)] if of_a_run else [folds_sheet(pairs), figures_sheet(pairs)]
    for sheet in filter(None, sheets):
        print_sheet(sheet, console)
    print_searches(searches, console)
    for table in judged.groups:
        print_sheet(group_sheet(table), console)
    for name in GALLERIES:  # Markdown in the layout of the published tables
        templates = [one for one in pairs if one.benchmark == f"{name} 1:1"]
        searched = [one for one in searches if one.benchmark == f"{name} 1:N"]
        if templates:
            print_line(f"{name}\n\n{tpr_table(templates)}\n\n{identification_table(searched)}", console)
