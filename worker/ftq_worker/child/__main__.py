"""Run one phase for an agent, or a whole job by itself: `python -m ftq_worker.child`."""

import sys

from ftq_worker.child import main, standalone

if len(sys.argv) == 4 and sys.argv[1].startswith("{"):
    main.main()
else:
    standalone.main()
