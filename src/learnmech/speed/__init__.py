"""Feature speed (Chizat, Netrapalli 2023): how fast each layer's features move in a step, why, and which knob sets it."""

from learnmech.speed.measuring import SpeedMeasurement, measure

__all__ = ["SpeedMeasurement", "measure"]


def __dir__() -> list[str]:
    return sorted(__all__)
