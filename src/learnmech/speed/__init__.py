"""Feature speed (Chizat, Netrapalli 2023): how fast each layer's features move in a step, why, and which knob sets it."""

from typing import TYPE_CHECKING

from learnmech.lazy import lazy_names

if TYPE_CHECKING:
    from learnmech.speed.data_angle import data_cosine, data_cosine_rank_one
    from learnmech.speed.hutchinson import Dispersion, dispersion
    from learnmech.speed.kantorovich import kantorovich_bound
    from learnmech.speed.kernel import BackwardFeatureKernel, KernelMoments
    from learnmech.speed.layer_dispersion import activation_dispersion, weight_dispersion
    from learnmech.speed.measuring import SpeedMeasurement, measure
    from learnmech.speed.network_kernel import backward_feature_kernel
    from learnmech.speed.predict import post_activation_cosine, predict_cosine, sign_update_cosine
    from learnmech.speed.predict_residual import predict_residual_cosine
    from learnmech.speed.scaling_setup import apply_scaling
    from learnmech.speed.scalings import Scaling, scaling
    from learnmech.speed.scan_fit import fit_powers
    from learnmech.speed.scan_page import write_scan_page
    from learnmech.speed.scan_result import ScanResult
    from learnmech.speed.scanning import scan
    from learnmech.speed.tuning import autoscale
    from learnmech.speed.tuning_result import Achieved, AutoscaleResult

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Achieved": "tuning_result",
        "AutoscaleResult": "tuning_result",
        "BackwardFeatureKernel": "kernel",
        "Dispersion": "hutchinson",
        "KernelMoments": "kernel",
        "Scaling": "scalings",
        "ScanResult": "scan_result",
        "SpeedMeasurement": "measuring",
        "activation_dispersion": "layer_dispersion",
        "apply_scaling": "scaling_setup",
        "autoscale": "tuning",
        "backward_feature_kernel": "network_kernel",
        "data_cosine": "data_angle",
        "data_cosine_rank_one": "data_angle",
        "dispersion": "hutchinson",
        "fit_powers": "scan_fit",
        "kantorovich_bound": "kantorovich",
        "measure": "measuring",
        "post_activation_cosine": "predict",
        "predict_cosine": "predict",
        "predict_residual_cosine": "predict_residual",
        "scaling": "scalings",
        "scan": "scanning",
        "sign_update_cosine": "predict",
        "weight_dispersion": "layer_dispersion",
        "write_scan_page": "scan_page",
    },
)

__all__ = [
    "Achieved",
    "AutoscaleResult",
    "BackwardFeatureKernel",
    "Dispersion",
    "KernelMoments",
    "Scaling",
    "ScanResult",
    "SpeedMeasurement",
    "activation_dispersion",
    "apply_scaling",
    "autoscale",
    "backward_feature_kernel",
    "data_cosine",
    "data_cosine_rank_one",
    "dispersion",
    "fit_powers",
    "kantorovich_bound",
    "measure",
    "post_activation_cosine",
    "predict_cosine",
    "predict_residual_cosine",
    "scaling",
    "scan",
    "sign_update_cosine",
    "weight_dispersion",
    "write_scan_page",
]
