"""InsightFace's arcface_torch: backbone.pth, model.pt, checkpoint_gpu_<rank>.pt. XAIface and ElasticFace share it.

ElasticFace's `<step>backbone.pth` differs by an optional squeeze-and-excitation, which the keys show. Its
`<step>header.pth` and Partial FC's shards are read by `heads`.
"""

from marginface.weights.base import Family

FAMILY = Family(
    name="insightface",
    prefixes=("",),
    layouts=("iresnet", "mobilefacenet", "vit"),
    heads={"softmax_fc.weight": False},
)
