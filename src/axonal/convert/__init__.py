"""Trained networks into spiking ones, each with a certificate of what changed."""

from .calibrate import calibrate
from .certificate import Certificate, LayerCertificate
from .driver import METHODS, convert
from .plan import Plan, Population, SpikingNetwork
from .qcfs import quantisable
from .sigma_delta import DeltaNetwork, sigma_delta
from .store import load, save

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
    "load",
    "quantisable",
    "save",
    "sigma_delta",
]
