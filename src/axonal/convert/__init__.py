"""Trained networks into spiking ones, each with a certificate of what changed."""

from .api import METHODS, convert
from .calibrate import calibrate
from .certificate import Certificate, LayerCertificate
from .checkpoint import load, save
from .methods.qcfs import quantisable
from .methods.sigma_delta import DeltaNetwork, sigma_delta
from .onnx.read import from_onnx
from .plan import Plan, Population, SpikingNetwork

__all__ = [
    "METHODS",
    "Certificate",
    "DeltaNetwork",
    "LayerCertificate",
    "Plan",
    "Population",
    "SpikingNetwork",
    "calibrate",
    "convert",
    "from_onnx",
    "load",
    "quantisable",
    "save",
    "sigma_delta",
]
