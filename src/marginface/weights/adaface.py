"""AdaFace's Lightning checkpoints: network, class weights and the running statistics of the norms; BGR.

Its own flip fusion weighs the unit embeddings with their norms, which is adding the raw ones.
"""

from marginface.weights.base import Family, Usage

FAMILY = Family(
    name="adaface",
    prefixes=("model.", ""),
    layouts=("ir",),
    usage=Usage(quality="norm"),
    bgr=True,
    heads={"head.kernel": True},
    head_state={"head.t": "t", "head.batch_mean": "batch_mean", "head.batch_std": "batch_std"},
)
