"""The exceptions Axonal raises; every message says what is wrong, where, and what to do."""


class AxonalError(Exception):
    """The base of every error that Axonal raises on purpose."""


class InputError(AxonalError, ValueError):
    """An argument, a shape or a recipe is wrong; nothing was changed."""


class NotFinite(InputError):
    """Numbers turned NaN or infinite where none may be."""


class FileError(AxonalError, OSError):
    """A file is missing, damaged or can't be written; nothing half-written is left behind."""


class ProcessError(AxonalError, RuntimeError):
    """Another process of the run has ended, or can't be reached."""


class MissingExtra(AxonalError, ImportError):
    """An optional dependency is not installed; the message names the extra to install."""
