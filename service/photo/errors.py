"""Why a file cannot be scored."""


class ImageError(Exception):
    """A file that cannot be scored, and whose fault that is.

    Attributes:
        error_type: short name for metrics and the `error` field, such as `unsupported_format`.
        status: the HTTP status code it answers with (413, 415 or 422).
        message: one sentence for the sender.
    """

    def __init__(self, error_type: str, status: int, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.status = status
        self.message = message
