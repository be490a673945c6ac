"""`marginface plan`: what a training run needs on every device, before there is a device."""

from collections.abc import Mapping

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from marginface.commands.numbers import Amount, LargeCount, Rate
from marginface.errors import InputError
from marginface.softmax.plan import SLOTS, HeadShape, plan
from marginface.terminal import open_console


def options(parser: ArgumentParser) -> None:
    parser.add_argument("--classes", type=LargeCount, required=True, help="identities, such as 85742 or 10e6")
    parser.add_argument("--backbone", type=str, default="iresnet100", help="see `marginface backbones`")
    parser.add_argument(
        "--devices", type=LargeCount, default=1, help="GPUs or processes; the classes are split over them"
    )
    parser.add_argument("--batch", type=LargeCount, default=128, help="images a device")
    parser.add_argument("--features", type=LargeCount, default=512, help="numbers in an embedding")
    parser.add_argument("--sample_rate", type=Rate, default=1.0, help="Partial FC: share of the classes in a step")
    parser.add_argument("--sub_centers", type=LargeCount, default=1, help="weights a class")
    parser.add_argument("--optimizer", choices=list(SLOTS), default="sgd", help="of all weights")
    parser.add_argument("--fused", type=bool, default=True, help="class weights are updated in the backward pass")
    parser.add_argument("--bfloat16", type=bool, default=True, help="products with the class weights in bfloat16")
    parser.add_argument("--mixed_precision", type=bool, default=True, help="the backbone's activations in 16 bits")
    parser.add_argument("--shard_backbone", type=bool, default=False, help="as trainer.shard_backbone (FSDP2)")
    parser.add_argument("--teraflops", type=Amount, default=0.0, help="a device's sustained rate; tells the time")
    parser.add_argument("--gigabytes", type=Amount, default=50.0, help="that a device sends a second, for the time")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="decides how large a block is")


def run(options: Namespace, command: str) -> None:
    shape = HeadShape(
        num_classes=_whole("classes", options.classes),
        num_features=_whole("features", options.features),
        batch=_whole("batch", options.batch),
        devices=_whole("devices", options.devices),
        sample_rate=options.sample_rate,
        sub_centers=_whole("sub_centers", options.sub_centers),
        optimizer=options.optimizer,
        fused=options.fused,
        bfloat16=options.bfloat16,
        device=options.device,
    )
    found = plan(shape, options.backbone, options.mixed_precision, options.shard_backbone)
    print_parts("memory of each device", found.memory, 2**30, "GiB")
    print_parts("arithmetic of an image, forward and backward", found.flops, 10**9, "GFLOP")
    print_parts("sent by each device in a step", found.wire, 10**6, "MB")
    if options.teraflops > 0:
        if options.gigabytes <= 0:
            raise InputError(f"gigabytes must be above 0, not {options.gigabytes:g}.")
        times = found.milliseconds(shape.batch, options.teraflops, options.gigabytes)
        print_parts("time of a step, one part after the other", times, 1, "ms")


def _whole(name: str, number: float) -> int:
    """A count, which may be written as 10e6. Raises InputError for a fraction."""
    if not float(number).is_integer():
        raise InputError(f"--{name} is {number}: give a whole number, such as 85742 or 10e6")
    return int(number)


def print_parts(title: str, parts: Mapping[str, float], unit: int, name: str) -> None:
    table = Table(title, name)
    table.columns[1].justify = "right"
    for part, value in parts.items():
        table.add_row(part, f"{value / unit:,.3f}")
    table.add_section()
    table.add_row("together", f"{sum(parts.values()) / unit:,.3f}")
    open_console().print(table)
