"""Trained networks into spiking ones, each with a certificate of what changed."""

from .calibrate import calibrate
from .certificate import Certificate, LayerCertificate
from .sigma_delta import DeltaNetwork, sigma_delta

__all__ = ["Certificate", "DeltaNetwork", "LayerCertificate", "calibrate", "sigma_delta"]
