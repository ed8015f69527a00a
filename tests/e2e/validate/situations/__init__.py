"""The table of situations: datasets as people bring them, and what must come of each.

Each line is one situation from public bug reports of people who fine-tune. `used` are texts that
the model sees, `trained` those that it learns; `unseen` and `unlearned` must not be in there.
"""

from tests.e2e.validate.situations.conversations import CONVERSATIONS
from tests.e2e.validate.situations.files import FILES
from tests.e2e.validate.situations.forms import FORMS
from tests.e2e.validate.situations.labels import LABELS
from tests.e2e.validate.situations.odd_rows import ODD_ROWS
from tests.e2e.validate.situations.specs import SPECS

EVERY = [*CONVERSATIONS, *FORMS, *ODD_ROWS, *LABELS, *FILES, *SPECS]
