"""The exceptions that users meet: each names the file, the value, what was expected and how to mend it."""


class MammoflowError(Exception):
    """Base of all errors that a user can mend; shown as one message, never as a traceback."""


class ConfigError(MammoflowError):
    """A setting in config.yaml is missing, of the wrong type, out of range or contradicts another."""


class DataError(MammoflowError):
    """A file or table can't be used as it is: unreadable, inconsistent, or too little of it."""


class AnnotationError(DataError):
    """An expert's annotation can't be read or doesn't fit its image."""


class LeakageError(DataError):
    """The same patient or the same pixels would be on both sides of a fold."""


class RenderError(DataError):
    """A file gives no picture; `reason` is a short code for the index's `reason` column.

    Parameters
    ----------
    reason : str
        Code in snake_case, for example ``truncated_pixel_data``.
    message : str
        What was found, what was expected and how to mend it.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


class ModelError(MammoflowError):
    """Weights or an architecture can't be used: wrong digest, unknown name, unsupported operation."""


class StorageError(MammoflowError):
    """The disk, not the data or the config, stopped a job: full, read-only, without permission, failing."""
