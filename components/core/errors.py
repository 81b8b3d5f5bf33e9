"""Every error that Dual Deploy raises on purpose.

    DualError                exit 1   something failed that is nobody's input
    ├── RolloutError         exit 1   a candidate failed its checks beside the running version, which stays
    ├── UnavailableError     exit 1   a service does not answer now: nothing is known about what was asked
    ├── UpdateError          exit 1   a device could not take what is published; what it had stays in service
    │   ├── OfflineError              the channel or a file could not be fetched
    │   ├── DeviceStorageError        the device's own file system refuses
    │   ├── UntrustedError   exit 4   no trusted signature, or another model's or channel's manifest
    │   ├── RollbackError    exit 4   an older manifest than one that was seen
    │   ├── UnsupportedError exit 4   what is published needs a newer app or runtime, or another contract
    │   ├── DamagedError     exit 4   a file of another size or digest than the manifest says
    │   └── SelfTestError    exit 4   the model loads or answers otherwise than its golden images say
    ├── UsageError           exit 2   a flag, a setting or a file that a person wrote is wrong
    │   └── MissingError              a service knows nothing of that name
    ├── NotBlessedError      exit 3   the models were judged and refused
    ├── DataError            exit 4   the images, labels or a stored file can't be used
    │   └── MissingObjectError        the store has no object of that name
    └── ConflictError        exit 5   somebody else changed the same object first
        ├── AlreadyExistsError        put-if-absent found another content under the name
        └── StaleError                compare-and-swap found another generation

A message says what is wrong, where, and what to do about it.
"""


class DualError(Exception):
    """Base of the tree; catch it to print `message` and leave with `exit_code`."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        """Build the message `where: what. fix.`; each part is a sentence or phrase without its full stop."""
        self.what, self.where, self.fix = what, where, fix
        head = f"{where}: {what}" if where else what
        super().__init__(f"{head}. {fix}." if fix else f"{head}.")


class RolloutError(DualError):
    """A rollout was aborted: the candidate was unloaded and live traffic stayed where it was."""


class UnavailableError(DualError):
    """The service does not answer now, or answers that it is overloaded: nothing is known about what was asked."""


class UpdateError(DualError):
    """A device could not take what is published; what it had stays in service."""


class OfflineError(UpdateError):
    """The channel or a file could not be fetched: try again later."""


class DeviceStorageError(UpdateError):
    """The device's own file system refuses (no space, no permission)."""


class UntrustedError(UpdateError):
    """The manifest has no signature of a trusted key, or belongs to another model or channel."""

    exit_code = 4


class RollbackError(UpdateError):
    """The manifest is older than one that this device has seen, or another one of the same sequence."""

    exit_code = 4


class UnsupportedError(UpdateError):
    """What is published needs a newer app or runtime, or has another contract than this one knows."""

    exit_code = 4


class DamagedError(UpdateError):
    """A file has another size or digest than the signed manifest says, or is missing."""

    exit_code = 4


class SelfTestError(UpdateError):
    """The model does not load here, or answers otherwise than its golden images say."""

    exit_code = 4


class UsageError(DualError):
    """A flag, a setting or a configuration file is wrong."""

    exit_code = 2


class MissingError(UsageError):
    """The service knows nothing of that name."""


class NotBlessedError(DualError):
    """The candidate was judged and refused; nothing was shipped."""

    exit_code = 3


class DataError(DualError):
    """Images, labels or a stored file can't be used as they are."""

    exit_code = 4


class MissingObjectError(DataError):
    """The store has no object of that name."""


class ConflictError(DualError):
    """Somebody else changed the same object first; nothing was overwritten."""

    exit_code = 5


class AlreadyExistsError(ConflictError):
    """A put-if-absent found an object under its name."""


class StaleError(ConflictError):
    """A compare-and-swap found another generation than the one that was read."""


def missing_extra(extra: str, module: str) -> UsageError:
    """The error for an optional dependency that isn't installed, with the command that installs it."""
    return UsageError(
        f"the Python package '{module}' is not installed",
        where=f"extra '{extra}'",
        fix=f"Install it with: uv sync --extra {extra}   (or: pip install 'dual-deploy[{extra}]')",
    )
