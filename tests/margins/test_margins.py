"""Names, parameters and states of the margins."""

import pytest
import torch
from torch import Tensor

from marginface.errors import InputError
from marginface.margins import MARGINS, Margin, create_margin, list_margins, margin_parameters
from marginface.margins.adacos import AdaCos
from marginface.margins.adaface import AdaFace
from marginface.margins.curricularface import CurricularFace
from marginface.margins.elasticface import ElasticFace
from marginface.margins.sphereface import SphereFace

SOFTMAX = [name for name, kind in MARGINS.items() if issubclass(kind, Margin)]


def build(name: str, **options: object) -> Margin:
    if name == "adacos":
        options["num_classes"] = 5
    margin = create_margin(name, **options)
    assert isinstance(margin, Margin)
    return margin


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    cos = torch.rand(8, 5, generator=generator) * 1.8 - 0.9
    return cos, torch.randint(-1, 5, (8,), generator=generator), torch.rand(8, generator=generator) * 100


def test_unknown_margin_lists_the_names() -> None:
    with pytest.raises(InputError, match=r"'arcfase'.*arcface"):
        create_margin("arcfase")


def test_unknown_parameter_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match=r"'margin'.*s, m, overflow, clip_eps, margin_grad, interclass_filter"):
        create_margin("arcface", margin=0.5)


@pytest.mark.parametrize("name", list_margins())
def test_parameters_are_accepted(name: str) -> None:
    assert "margin_grad" in margin_parameters(name)
    needed = {"num_classes": 10} if "num_classes" in margin_parameters(name) else {}
    create_margin(name, **needed)


def test_the_default_may_be_given() -> None:
    assert create_margin("uniface", margin_grad=None).margin_grad == create_margin("uniface").margin_grad


@pytest.mark.parametrize(("given", "found"), [(True, "true"), ("straight-through", "straight_through")])
@pytest.mark.parametrize("name", ["arcface", "uniface"])
def test_the_gradient_may_be_given_as_yaml_reads_it(name: str, given: object, found: str) -> None:
    assert create_margin(name, margin_grad=given).margin_grad == found


@pytest.mark.parametrize("name", list_margins())
def test_a_word_for_a_number_is_refused(name: str) -> None:
    margin = create_margin(name, **{"num_classes": 10} if "num_classes" in margin_parameters(name) else {})
    words = {parameter for parameter in margin_parameters(name) if isinstance(getattr(margin, parameter, 0), str)}
    for parameter in set(margin_parameters(name)) - words - {"target"}:
        with pytest.raises(
            InputError,
            match=rf"{parameter} of margin '{name}' must be (a number|a whole number|true or false), not 'abc'",
        ):
            create_margin(name, **{parameter: "abc"})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("arcface", {"overflow": "wrap"}),
        ("arcface", {"margin_grad": "none"}),
        ("arcface", {"margin_grad": False}),
        ("arcface", {"s": 0}),
        ("magface", {"target": "sphere"}),
        ("magface", {"l_a": 110, "u_a": 10}),
        ("sv-softmax", {"target": "cos"}),
        ("elasticface-arc-plus", {"plus_mode": "random"}),
        ("sphereface2", {"num_classes": 0}),
        ("adacos", {"num_classes": 0}),
    ],
)
def test_bad_values(name: str, options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        create_margin(name, **options)


@pytest.mark.parametrize("name", [name for name in SOFTMAX if MARGINS[name].reads_norms])
def test_norms_are_asked_for(name: str) -> None:
    cos, labels, _ = batch()
    with pytest.raises(InputError, match="norms"):
        build(name)(cos, labels)


@pytest.mark.parametrize("name", SOFTMAX)
def test_unlabelled_rows_are_only_scaled(name: str) -> None:
    cos, labels, norms = batch()
    labels[:4] = -1
    margin = build(name)
    logits = margin(cos, labels, norms)
    torch.testing.assert_close(logits[:4], margin.row_scale(norms)[:4, None] * cos[:4])


@pytest.mark.parametrize("name", SOFTMAX)
def test_blocks_and_unlabelled_rows_do_not_matter(name: str) -> None:
    """The columns may come in any blocks, and the rows that count give the same without the others."""
    cos, labels, norms = batch()
    margin, again = build(name, interclass_filter=0.5), build(name, interclass_filter=0.5)
    logits = margin(cos, labels, norms)
    valid = labels >= 0
    torch.testing.assert_close(again(cos[valid], labels[valid], norms[valid]), logits[valid])
    target = cos[valid].gather(1, labels[valid][:, None]).squeeze(1)
    bent = margin.target(target, norms[valid])
    whole = margin.negatives(cos[valid], target, bent)
    blocks = [margin.negatives(block, target, bent) for block in cos[valid].split(2, dim=1)]
    torch.testing.assert_close(torch.cat(blocks, 1), whole)
    if not margin.bends_negatives:
        torch.testing.assert_close(whole, cos[valid])


@pytest.mark.parametrize("name", SOFTMAX)
def test_state_survives_saving_and_rests_in_eval(name: str) -> None:
    margin, resumed = build(name), build(name)
    for seed in range(3):
        margin(*batch(seed))
    resumed.load_state_dict(margin.state_dict())
    torch.testing.assert_close(resumed(*batch(9)), margin(*batch(9)), rtol=0, atol=0)
    margin.eval()
    before = {key: value.clone() for key, value in margin.state_dict().items()}
    margin(*batch(10))
    assert all(torch.equal(margin.state_dict()[key], value) for key, value in before.items())


def test_elastic_margins_come_from_seed_and_step_alone() -> None:
    margin, other = build("elasticface-arc", seed=3), build("elasticface-arc", seed=4)
    assert isinstance(margin, ElasticFace)
    assert isinstance(other, ElasticFace)
    first = margin.sample(1000)
    torch.manual_seed(0)
    assert torch.equal(margin.sample(1000), first)
    assert not torch.equal(other.sample(1000), first)
    margin.update(torch.zeros(1), torch.ones(1))
    assert not torch.equal(margin.sample(1000), first)
    assert abs(first.mean() - 0.5) < 0.01
    assert abs(first.std() - 0.05) < 0.005


def test_adaface_statistics() -> None:
    margin = build("adaface", t_alpha=0.5)
    assert isinstance(margin, AdaFace)
    margin.update(torch.zeros(3), torch.tensor([10.0, 500.0, 0.0]))  # clipped to 10, 100, 0.001
    norms = torch.tensor([10.0, 100.0, 0.001])
    torch.testing.assert_close(margin.batch_mean, (20 + norms.mean())[None] / 2)
    torch.testing.assert_close(margin.batch_std, (100 + norms.std())[None] / 2)
    margin.update(torch.zeros(1), torch.tensor([5.0]))  # the spread of one row is unknown
    torch.testing.assert_close(margin.batch_std, (100 + norms.std())[None] / 2)


def test_curricularface_t_and_sphereface_annealing() -> None:
    curricular, sphere = build("curricularface"), build("sphereface", lambda_base=1500, lambda_gamma=0.1)
    assert isinstance(curricular, CurricularFace)
    assert isinstance(sphere, SphereFace)
    for _ in range(2):
        curricular.update(torch.tensor([0.4, 0.6]), torch.ones(2))
        sphere.update(torch.tensor([0.4, 0.6]), torch.ones(2))
    torch.testing.assert_close(curricular.t, torch.tensor([0.005 + 0.99 * 0.005]).float())
    assert sphere.annealing() == pytest.approx(1500 / 1.2)
    sphere.iteration.fill_(10**6)
    assert sphere.annealing() == 5


def test_adacos_scale_follows_the_last_batch() -> None:
    margin = create_margin("adacos", num_classes=5).double()
    assert isinstance(margin, AdaCos)
    assert margin.scale == pytest.approx(2**0.5 * torch.tensor(4.0).log().item())
    cos, labels, _ = batch()
    logits = margin(cos.double(), labels)
    valid = labels >= 0
    others = logits[valid].exp().sum(1) - logits[valid].exp().gather(1, labels[valid][:, None]).squeeze(1)
    torch.testing.assert_close(margin.log_b, others.mean().log())
    theta = torch.tensor([0.1, 0.3, 0.2], dtype=torch.float64)
    margin.update(theta.cos(), torch.ones(3))
    torch.testing.assert_close(margin.s, others.mean().log() / torch.tensor(0.2).double().cos())
    fixed = create_margin("adacos", num_classes=5, dynamic=False)
    fixed(cos, labels)
    assert isinstance(fixed, AdaCos)
    assert fixed.s == pytest.approx(fixed.scale)


def test_magface_regulariser_has_a_gradient() -> None:
    margin = build("magface")
    norms = torch.tensor([20.0, 40.0, 5.0, 200.0], dtype=torch.float64, requires_grad=True)
    value = margin.regulariser(norms)
    a = torch.tensor([20.0, 40.0, 10.0, 110.0], dtype=torch.float64)
    torch.testing.assert_close(value, 35 * (a / 110**2 + 1 / a).mean())
    (grad,) = torch.autograd.grad(value, norms)
    torch.testing.assert_close(grad[:2], 35 * (1 / 110**2 - 1 / a[:2] ** 2) / 4)
    assert (grad[2:] == 0).all()
