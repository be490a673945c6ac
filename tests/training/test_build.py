"""What a configuration asks for, refused before the first step where its parts do not fit."""

import pytest

from marginface.backbones import create_backbone
from marginface.errors import InputError
from marginface.training.build import check_image_size
from marginface.training.config import Config, DataConfig, ModelConfig

WIDE = "give --data.size 112, or another --model.backbone"


@pytest.mark.parametrize(
    ("backbone", "size", "said"),
    [
        ("iresnet18", 128, f"iresnet18 takes images of 112x112 pixels, but data.size is 128: {WIDE}"),
        ("small", 64, WIDE),
        ("mobilefacenet", 128, WIDE),
        ("mobilefacenet-se", 128, ""),
        ("mobilefacenet-se", 112, "takes images of 128x128 pixels, but data.size is 112: give --data.size 128, or"),
        ("vit-tiny", 112, ""),
        ("sphere20", 112, "takes images of 112x96 pixels, but data.size is 112: give --model.options.image_size"),
    ],
)
def test_a_network_that_does_not_take_the_images_is_refused(backbone: str, size: int, said: str) -> None:
    network = create_backbone(backbone, 16).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    config = Config(data=DataConfig(size=size), model=ModelConfig(backbone, 16))
    if said:
        with pytest.raises(InputError) as refused:
            check_image_size(network, config)
        assert said in str(refused.value)
    else:
        check_image_size(network, config)
    assert network.training
    assert all((before[name] == value).all() for name, value in network.state_dict().items())
