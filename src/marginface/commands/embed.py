"""`marginface embed`: a folder of aligned faces to embeddings in one file."""

from jsonargparse import ArgumentParser, Namespace

from marginface.commands.progress import progress_bar
from marginface.commands.shared import add_allow_outside, add_overwrite, load_model, notice_alignment
from marginface.evaluate import embed_folder
from marginface.files import check_file
from marginface.loading.alignment import read_alignment
from marginface.terminal import print_line


def options(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=str, help="folder of a model, or of a run")
    parser.add_argument("folder", type=str, help="aligned faces, in folders or not")
    parser.add_argument("-o", "--output", type=str, required=True, help="file to write: emb.npz")
    parser.add_argument("--flip", type=bool, default=True, help="add the embedding of the mirror image")
    parser.add_argument("--resize", type=bool, default=False, help="scale images of another size to the model's")
    add_allow_outside(parser)
    add_overwrite(parser)


def run(options: Namespace, command: str) -> None:
    check_file(options.output, options.overwrite, [options.model], within=[options.folder])
    model = load_model(options.model)
    notice_alignment(options.folder, read_alignment(options.folder, options.allow_outside), model)
    with progress_bar("embedding", "nothing was written; the same command begins anew") as progress:
        words = options.folder, options.output, options.flip, options.resize
        count = embed_folder(model, *words, progress, options.allow_outside, options.overwrite)
    print_line(f"{count:,} embeddings in {options.output}, computed in {model.path}")
