"""CVLface's model.pt: AdaFace's nets and transformers behind `net.`, published for RGB."""

from marginface.weights.base import Family

FAMILY = Family(name="cvlface", prefixes=("net.",), layouts=("ir", "vit", "iresnet"))
