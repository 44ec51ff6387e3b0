"""``python -m tuner``: one place where exceptions become exit codes."""

import sys
import tempfile
import traceback
from pathlib import Path

from tuner.cli import app
from tuner.errors import UserError


def main() -> None:
    """Run the command line; exit 0, 1 (the user's to mend), 2 (usage), 3 (a bug), 130."""
    try:
        app()
    except UserError as error:
        print(f"error: {error}" if error.exit_code == 1 else error, file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception:  # noqa: BLE001 - the last resort
        log = Path(tempfile.mkdtemp(prefix="tuner-")) / "bug.log"
        log.write_text(f"{sys.argv}\n{sys.version}\n\n{traceback.format_exc()}")
        last = traceback.format_exc().strip().splitlines()[-1]
        print(f"a bug in tuner, please report it with {log}: {last}", file=sys.stderr)
        sys.exit(3)


if __name__ == "__main__":
    main()
