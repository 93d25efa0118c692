"""Feature speed (Chizat, Netrapalli 2023): how fast each layer's features move in a step, why, and which knob sets it."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.speed.data_angle import data_cosine, data_cosine_rank_one
    from learnmech.speed.hutchinson import Dispersion, dispersion
    from learnmech.speed.kantorovich import kantorovich_bound
    from learnmech.speed.kernel import BackwardFeatureKernel
    from learnmech.speed.layer_dispersion import activation_dispersion, weight_dispersion
    from learnmech.speed.measuring import SpeedMeasurement, measure
    from learnmech.speed.network_kernel import backward_feature_kernel
    from learnmech.speed.predict import post_activation_cosine, predict_cosine, sign_update_cosine
    from learnmech.speed.predict_residual import predict_residual_cosine

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "BackwardFeatureKernel": "kernel",
        "Dispersion": "hutchinson",
        "SpeedMeasurement": "measuring",
        "activation_dispersion": "layer_dispersion",
        "backward_feature_kernel": "network_kernel",
        "data_cosine": "data_angle",
        "data_cosine_rank_one": "data_angle",
        "dispersion": "hutchinson",
        "kantorovich_bound": "kantorovich",
        "measure": "measuring",
        "post_activation_cosine": "predict",
        "predict_cosine": "predict",
        "predict_residual_cosine": "predict_residual",
        "sign_update_cosine": "predict",
        "weight_dispersion": "layer_dispersion",
    },
)

__all__ = [
    "BackwardFeatureKernel",
    "Dispersion",
    "SpeedMeasurement",
    "activation_dispersion",
    "backward_feature_kernel",
    "data_cosine",
    "data_cosine_rank_one",
    "dispersion",
    "kantorovich_bound",
    "measure",
    "post_activation_cosine",
    "predict_cosine",
    "predict_residual_cosine",
    "sign_update_cosine",
    "weight_dispersion",
]
