"""The kind `fixed_point`: weights rounded after training, or trained with them rounded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from trtbench.compress.fixed_point_learn import learn_by_source, learn_steps
from trtbench.compress.fixed_point_network import FixedPoint, by_reconstruction, by_source, calibrated_inputs
from trtbench.compress.method import Compressed, Context
from trtbench.data import training_sample
from trtbench.jsonable import to_jsonable
from trtbench.models.container import to_bytes
from trtbench.models.rounding import round_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from trtbench.records import Dataset
    from trtbench.suite import FixedPointVariant


def quantize(network: nn.Module, config: FixedPointVariant, context: Context) -> Compressed:
    """Round a network's weights in place, and train it so where the variant asks for it."""
    made = quantized(network, config, context)
    record = made.record(config)
    size = len(to_bytes(made.packed(facts={})))
    facts: dict[str, Any] = {"fixed_point": to_jsonable(record), "packed_bytes": size}
    note = f"{record.bits_per_weight:.2f} bits a weight; {size:,} bytes as a packed file"
    return Compressed(
        model=made.model,
        facts=facts,
        notes=(note, *_left_in_float(record)),
        is_tuned=config.fine_tune,
        packed=lambda known: made.packed(facts=known),
    )


def quantized(network: nn.Module, config: FixedPointVariant, context: Context) -> FixedPoint:
    """Round a network's weights in place, and what flows into its layers if asked; learnt with `config.fine_tune`."""
    if config.activations is not None:
        grids = calibrated_inputs(network, _images(context.dataset, config), bits=config.activations)
        round_inputs(network, grids)
    if config.scheme != "best":
        assert isinstance(config.bits, int), "the suite gives these schemes a number of bits"
        if config.fine_tune:
            learn_by_source(network, scheme=config.scheme, bits=config.bits, tune=context.tune)
        return by_source(network, scheme=config.scheme, bits=config.bits)
    made = by_reconstruction(network, _images(context.dataset, config), bits=config.bits, seed=config.seed)
    return learn_steps(made, bits=config.bits, tune=context.tune) if config.fine_tune else made


def _images(dataset: Dataset, config: FixedPointVariant) -> Tensor:
    return torch.from_numpy(training_sample(dataset, count=config.images, seed=config.seed)[0])


def _left_in_float(record: Any) -> tuple[str, ...]:
    """Say which layers were left in float."""
    layers = record.float_layers
    return (f"left in float: {', '.join(layers)}",) if layers else ()
