"""Every error zeroskip raises on purpose: one hierarchy, so that one ``except`` catches them all."""


class ZeroskipError(Exception):
    """Base of all errors raised by zeroskip; the message says what, where, got, expected, how to fix."""


class ModelError(ZeroskipError, ValueError):
    """The model file or graph cannot be read, is inconsistent, or uses something unsupported."""


class InputError(ZeroskipError, ValueError):
    """An argument or an input array has the wrong name, type, rank, shape or value."""


class AlgorithmError(InputError):
    """An algorithm was forced on a layer that it refuses, or no algorithm has that name."""


class CacheWarning(UserWarning):
    """A cache or tuning store was corrupt or unwritable; work went on without it."""
