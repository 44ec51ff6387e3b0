"""Where runs are kept: a folder, or object storage, which no other package knows anything of.

A run on object storage works in a *mirror* of its folder on the driver's machine, and a thread
brings what changes there to the storage. Checkpoints take no such way: the workers write them to
the storage themselves. There a run's folder looks as it does on a disk, but for the journal, which
is cut into segments, for no object can be appended to; each is named by the byte it begins at.

What is guaranteed:

- An object is there whole or not at all. Of ``best/``, its ``config.yaml`` comes last.
- The journal in the storage is a beginning of the driver's, at most a second behind where the
  storage answers at once. An epoch whose events were lost with the driver is trained again.
- A checkpoint is deleted only after the journal in the storage has ceased to name it.
- One driver at a time: a lease, renewed every second by a thread of its own, names its holder. One
  that is not renewed for ``LEASE_SECONDS`` can be taken over. Its former holder begins no write and
  no deletion once that time has passed, until it has renewed it; where another has it, it ends, and
  deletes nothing. A write that it began before, and that arrives late, takes nothing from the
  successor's lease; of the journal, it is cut off by where the successor's first segment begins.
  Whether a process was stopped between looking at the clock and writing, no object storage can
  tell: that one write is the exception. So are the workers' checkpoints, which are under no lease.
- An object whose name would lead out of the run's folder is no part of the run.
- URIs with credentials in them are refused, and not shown.
"""

from tuner.storage.checkpoints import checkpoint_at, drop_checkpoints, for_tune, placed
from tuner.storage.fetching import BEST, EVENTS, STATE, bring, fetch_model, fetched, run_names
from tuner.storage.lease import is_held
from tuner.storage.mirror import Kept, hold
from tuner.storage.places import is_remote, join, local_folder, refuse_secrets, split, uri_of

__all__ = [
    "BEST",
    "EVENTS",
    "STATE",
    "Kept",
    "bring",
    "checkpoint_at",
    "drop_checkpoints",
    "fetch_model",
    "fetched",
    "for_tune",
    "hold",
    "is_held",
    "is_remote",
    "join",
    "local_folder",
    "placed",
    "refuse_secrets",
    "run_names",
    "split",
    "uri_of",
]
