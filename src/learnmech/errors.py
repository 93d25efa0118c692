"""The few kinds of error and warning that learnmech raises; each message says what was expected, what came, what to do."""


class LearnmechError(Exception):
    """Base of every error that learnmech raises on purpose."""


class InputError(LearnmechError, ValueError):
    """An argument has the wrong value, shape or type; nothing was computed."""


class DataError(LearnmechError):
    """A data set is missing, incomplete or corrupt."""


class HistoryError(LearnmechError, ValueError):
    """A history breaks the data model, or a file does not hold one."""


class StorageError(LearnmechError, OSError):
    """A file could not be written; what stood at that path before is intact."""


class LearnmechWarning(UserWarning):
    """Something was worked around or left out; the message says what."""
