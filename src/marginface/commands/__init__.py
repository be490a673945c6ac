"""The verbs of the command `marginface`, a module each, imported only when it is called. Called by `cli.py`.

A module has `options(parser)`, which adds its words, and `run(options, command)`, which does the work and prints;
`command` is the whole line, for reports to show. It may have `prepared(words)`, the words to parse instead of those
given, and `explained(message)`, a better sentence for the parser's complaint.
"""

COMMANDS = {
    "train": "learn an embedding from faces; without options, the recipe quickstart",
    "evaluate": "measure a model on people it never saw: table, JSON, HTML report",
    "embed": "turn a folder of aligned faces into embeddings",
    "align": "turn photographs with five points a face into aligned faces",
    "convert": "turn a data set of any format into another, images unchanged",
    "inspect": "look a data set over: duplicates, damage, wrong names, people shared with a benchmark",
    "fetch": "download a small public set",
    "plan": "predict the memory, arithmetic and traffic of a run, such as 10 million classes on 8 GPUs",
    "recipes": "list the recipes, each a run of a published system",
    "backbones": "list the networks",
    "margins": "list the margins and their parameters",
}
