"""The verbs of the command `marginface`, a module each, imported only when it is called. Called by `cli.py`.

A module has `options(parser)`, which adds its words, and `run(options, command)`, which does the work and prints;
`command` is the whole line, for reports to show. It may have `prepared(words)`, the words to parse instead of those
given, and `explained(message)`, a better sentence for the parser's complaint.
"""

COMMANDS = {
    "train": "learn an embedding from faces; without options, the recipe quickstart",
    "status": "tell where a run stands, from another terminal",
    "evaluate": "measure a model on people it never saw: table, JSON, HTML report",
    "compare": "models side by side on the same pairs, and whether they differ by more than luck",
    "threshold": "which similarity to accept at, from an evaluation, stored with the model",
    "embed": "turn a folder of aligned faces into embeddings",
    "align": "turn photographs with five points a face into aligned faces",
    "import": "read a published checkpoint, known by its keys, into a model's folder",
    "export": "write a model for ONNX Runtime, OpenVINO, InsightFace or torch, checked against the original",
    "push": "publish a model with its card on the Hugging Face Hub",
    "zoo": "list published checkpoints: where they are, their figures, and what a file at hand is",
    "convert": "turn a data set of any format into another, images unchanged",
    "inspect": "look a data set over: duplicates, damage, wrong names, people shared with a benchmark",
    "fetch": "download a small public set",
    "plan": "predict the memory, arithmetic and traffic of a run, such as 10 million classes on 8 GPUs",
    "gallery": "enrol people from photographs; list, remove, erase, export them",
    "identify": "tell who is in a photograph, a folder, a video, or before the camera",
    "verify": "tell whether two photographs show one person",
    "demo": "open a local web page that recognises people",
    "recipes": "list the recipes, each a run of a published system",
    "backbones": "list the networks",
    "margins": "list the margins and their parameters",
}
