"""`marginface push`: a model to the Hugging Face Hub, with its card."""

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.shared import load_model
from marginface.terminal import print_line
from marginface.weights.figures import find_figures, read_figures
from marginface.weights.hub import push


def options(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="folder of a model, or of a run")
    parser.add_argument("name", type=str, help="org/name on the Hub")
    parser.add_argument("--evaluation", type=str, default="", help="JSON of marginface evaluate; a run's own otherwise")
    parser.add_argument("--licence", type=str, default="other", help="of the weights: apache-2.0, cc-by-nc-4.0, ...")
    parser.add_argument("--private", action="store_true", help="only you may see it")


def run(options: Namespace, command: str) -> None:
    results = read_figures(options.evaluation) if options.evaluation else find_figures(options.model)
    address = push(load_model(options.model), options.name, results, options.licence, options.private)
    print_line(f"published: {address}")
