"""The errors of a database, raised as errors of the package that uses it."""


class ErrorsAs:
    """A reusable context manager that raises `error_type` in place of `errors`; those that are in `but` stay.

    The text is the original one, in one line, after `prefix` and a colon.
    """

    def __init__(
        self,
        error_type: type[Exception],
        errors: tuple[type[Exception], ...],
        *,
        but: tuple[type[Exception], ...],
        prefix: str,
    ) -> None:
        self._error_type = error_type
        self._errors = errors
        self._but = but
        self._prefix = prefix

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, self._errors) and not isinstance(error, self._but):
            raise self._error_type(f"{self._prefix}: {' '.join(str(error).split())}") from error
