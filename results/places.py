"""Where a row of a measurement belongs: to a pair, an adapter, a layer, a projection, a module, a training step.

A class of rows takes these as bases, the last named first in the file: ``class LayerPair(Measures, InLayer, Between)``
has the keys a, b, stack, layer, and then what was measured.
"""

from __future__ import annotations

from pydantic import Field

from results.part import Part

STACK = (
    "Which stack of layers, where the model has several (an encoder and a decoder, a vision tower beside a text "
    "model). Absent where it has one; null for a module outside of all layers."
)


class Named(Part):
    """Of one model."""

    name: str = Field(description="The model: a training's name, an adapter's in a comparison, or base.")


class Between(Part):
    """Of a pair of models. Which is a and which is b says nothing: look pairs up whichever way round."""

    a: str = Field(description="One model of the pair.")
    b: str = Field(description="The other.")


class AtStep(Part):
    """At a training step."""

    step: int = Field(description="Optimiser steps done, from 1.")


class InLayer(Part):
    """Over the modules of one layer."""

    stack: str | None = Field(default=None, description=STACK)
    layer: int = Field(description="The layer's number, from 0 as in the modules' names.")


class OfProjection(Part):
    """Over the modules of one projection."""

    stack: str | None = Field(default=None, description=STACK)
    projection: str = Field(description="The last part of the modules' names, such as q_proj.")


class AtModule(Part):
    """At one module."""

    module: str = Field(description="The module's whole name, such as model.layers.0.self_attn.q_proj.")
    layer: int | None = Field(description="The layer's number, from 0; null for a module outside of all layers.")
    projection: str = Field(description="The last part of the module's name, such as q_proj.")
    stack: str | None = Field(default=None, description=STACK)


class LeftOut(Part):
    """A module that could not be measured."""

    module: str = Field(description="The module's whole name.")
    why: str = Field(description="Why it is left out, in words.")
